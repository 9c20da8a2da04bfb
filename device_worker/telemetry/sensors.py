"""Reading sensors of a Linux device: pure parsers, and readers of fixed files.

Unreadable is None, never 0: a missing sensor does not mean a cool device.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from typing import Any, Dict, Optional

_POWERED_OFF = -256000
_ABSOLUTE_ZERO = -273150
_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


@dataclass(frozen=True)
class Reading:
    """One look at all sensors, ``t_s`` seconds after the sampler started.

    ``temps`` in degrees Celsius, ``freq_khz`` in kHz, ``mem_free`` in bytes.
    """

    t_s: float
    temps: Dict[str, Optional[float]] = field(default_factory=dict)
    freq_khz: Dict[str, Optional[int]] = field(default_factory=dict)
    throttled: Optional[int] = None
    mem_free: Optional[int] = None

    def as_json(self) -> Dict[str, Any]:
        return {
            "t_s": round(self.t_s, 6),
            "temps": self.temps,
            "freq_khz": self.freq_khz,
            "throttled": self.throttled,
            "mem_free": self.mem_free,
        }


def parse_temperature(text: Optional[str]) -> Optional[float]:
    """Degrees Celsius from a thermal zone's millidegrees; None for powered-off zones."""
    value = _integer(text, 10)
    if value is None or value == _POWERED_OFF or value < _ABSOLUTE_ZERO:
        return None
    return value / 1000


def parse_frequency(text: Optional[str]) -> Optional[int]:
    """kHz from scaling_cur_freq; None for ``<unknown>`` and for 0."""
    return _integer(text, 10) or None


def parse_throttled(text: Optional[str]) -> Optional[int]:
    """Raspberry Pi throttle flags: hexadecimal, printed without 0x."""
    return _integer(text, 16)


def parse_mem_available(text: Optional[str]) -> Optional[int]:
    """Bytes of MemAvailable from /proc/meminfo (which counts in KiB)."""
    for line in (text or "").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable" and rest.split():
            value = _integer(rest.split()[0], 10)
            return None if value is None else value * 1024
    return None


def _integer(text: Optional[str], base: int) -> Optional[int]:
    try:
        return int((text or "").strip(), base)
    except ValueError:
        return None


def read_text(path: str) -> Optional[str]:
    """The file's text, None when it cannot be read (drivers answer with many errors)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return None


class Sensors:
    """The sensors found under ``root`` ("/" on a device) when constructed."""

    def __init__(self, root: str = "/") -> None:
        self._zones: Dict[str, str] = {}
        for folder in sorted(glob.glob(os.path.join(root, "sys/class/thermal/thermal_zone*"))):
            kind = (read_text(os.path.join(folder, "type")) or "").strip()
            name = os.path.basename(folder)
            self._zones["%s/%s" % (name, kind) if kind else name] = os.path.join(folder, "temp")
        self._cpus: Dict[str, str] = {}
        cpus = os.path.join(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
        for path in sorted(glob.glob(cpus)):
            self._cpus[path.split(os.sep)[-3]] = path
        self._throttled = os.path.join(root, _THROTTLED)
        self._meminfo = os.path.join(root, "proc/meminfo")

    def read(self, t_s: float) -> Reading:
        return Reading(
            t_s,
            {name: parse_temperature(read_text(path)) for name, path in self._zones.items()},
            {name: parse_frequency(read_text(path)) for name, path in self._cpus.items()},
            parse_throttled(read_text(self._throttled)),
            parse_mem_available(read_text(self._meminfo)),
        )
