"""Looking at the sensors of a device through its sources (wire.Source)."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Sequence

from device_worker.telemetry.parsers import PARSERS
from device_worker.wire import Source

_ZONES = "/sys/class/thermal/thermal_zone*"
_CPUS = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"

DEFAULT: Sequence[Source] = (
    Source("thermal_zones", [_ZONES + "/type", _ZONES + "/temp"]),
    Source("cpu_frequencies", [_CPUS + "/scaling_cur_freq"]),
    Source("throttled_sysfs", ["/sys/devices/platform/soc/soc:firmware/get_throttled"]),
    Source("meminfo", ["/proc/meminfo"]),
)
"""Sources of an ordinary Linux device, for one whose class names none."""


@dataclass(frozen=True)
class Reading:
    """One look at all sensors, ``t_s`` seconds after the sampler started; names as in parsers."""

    t_s: float
    values: Dict[str, Optional[float]] = field(default_factory=dict)

    def as_json(self) -> Dict[str, Any]:
        return {"t_s": round(self.t_s, 6), "values": self.values}


def read_text(path: str) -> Optional[str]:
    """The file's text, None when it cannot be read (drivers answer with many errors)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return None


class Sensors:
    """What ``sources`` (none: ``DEFAULT``) find under ``root`` when constructed."""

    def __init__(self, sources: Sequence[Source] = (), root: str = "/") -> None:
        self._found: List[tuple[Source, List[str]]] = []
        for source in sources or DEFAULT:
            patterns = [os.path.join(root, path.lstrip("/")) for path in source.paths]
            paths = sorted({path for pattern in patterns for path in glob.glob(pattern)})
            self._found.append((source, paths))

    def read(self, t_s: float) -> Reading:
        values: Dict[str, Optional[float]] = {}
        for source, paths in self._found:
            raw = {path: read_text(path) for path in paths}
            for name, value in PARSERS[source.parser](raw).items():
                if value is None or isinstance(value, (int, float)):
                    values[name] = value
        return Reading(t_s, values)
