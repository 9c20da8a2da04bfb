"""What devices print, as numbers with stable names: pure parsers, found by name in ``PARSERS``.

Each takes the raw texts of one source: path -> text for files, {"": text} for a command's output,
None where it could not be read. It returns values by sensor name, None where the sensor is there
but its value is not known (powered off, placeholder). Missing is None, never 0: a missing sensor
does not mean a cool device. A parser never raises for text it does not understand.

Names: ``temp/<zone>`` degrees Celsius, ``freq/<cpu>`` kHz, ``power/<rail>`` mW,
``flags/<name>`` bits, ``battery/level`` percent, ``mem/free`` bytes.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, Mapping, Optional, Union

Raw = Mapping[str, Optional[str]]
Value = Union[None, int, float, str]
Parser = Callable[[Raw], Dict[str, Value]]

_POWERED_OFF = -256000
_ABSOLUTE_ZERO = -273150


def thermal_zones(raw: Raw) -> Dict[str, Value]:
    """``type`` and ``temp`` (millidegrees) of /sys/class/thermal/thermal_zone*; -256 °C is off."""
    found: Dict[str, Value] = {}
    for path, text in raw.items():
        folder, name = os.path.split(path)
        if name != "temp":
            continue
        kind = (raw.get(os.path.join(folder, "type")) or "").strip()
        zone = os.path.basename(folder)
        found["temp/%s/%s" % (zone, kind) if kind else "temp/%s" % zone] = _millidegrees(text)
    return found


def cpu_frequencies(raw: Raw) -> Dict[str, Value]:
    """kHz of each cpu*/cpufreq/scaling_cur_freq; ``<unknown>`` and 0 are unknown."""
    return {
        "freq/%s" % path.split("/")[-3]: _integer(text, 10) or None for path, text in raw.items()
    }


def throttled_sysfs(raw: Raw) -> Dict[str, Value]:
    """Raspberry Pi throttle flags: hexadecimal, printed without 0x."""
    found: Dict[str, Value] = {}
    for text in raw.values():
        found["flags/throttled"] = _integer(text, 16)
    return found


def meminfo(raw: Raw) -> Dict[str, Value]:
    """Bytes of MemAvailable from /proc/meminfo (which counts in KiB)."""
    for text in raw.values():
        for line in (text or "").splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable" and rest.split():
                value = _integer(rest.split()[0], 10)
                return {"mem/free": None if value is None else value * 1024}
    return {"mem/free": None}


PARSERS: Dict[str, Parser] = {
    "thermal_zones": thermal_zones,
    "cpu_frequencies": cpu_frequencies,
    "throttled_sysfs": throttled_sysfs,
    "meminfo": meminfo,
}


def _millidegrees(text: Optional[str]) -> Optional[float]:
    value = _integer(text, 10)
    if value is None or value == _POWERED_OFF or value < _ABSOLUTE_ZERO:
        return None
    return value / 1000


def _integer(text: Optional[str], base: int) -> Optional[int]:
    try:
        return int((text or "").strip(), base)
    except ValueError:
        return None
