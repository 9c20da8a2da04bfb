"""Looking at the sensors of a device through its sources (wire.Source).

A source that does not answer in time costs its time once: it is unknown from then on and is not
asked again, while the others go on.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Union

from device_worker.telemetry.asking import Asker, Command, LateError, Stream, program
from device_worker.telemetry.parsers import Raw, Value
from device_worker.telemetry.plausible import Doubts, believed, numbers, understood
from device_worker.wire import Source

_ZONES = "/sys/class/thermal/thermal_zone*"
_CPU = "/sys/devices/system/cpu/cpu[0-9]*"
_SUPPLY = "/sys/class/power_supply/*/"

DEFAULT: Sequence[Source] = (
    Source("thermal_zones", [_ZONES + "/type", _ZONES + "/temp"]),
    Source("cpu_frequencies", [_CPU + "/cpufreq/scaling_cur_freq"]),
    Source("throttled_sysfs", ["/sys/devices/platform/soc/soc:firmware/get_throttled"]),
    Source("throttle_counts", [_CPU + "/thermal_throttle/*_throttle_count"]),
    Source(
        "power_supply",
        [_SUPPLY + name for name in ("type", "scope", "online", "present", "capacity", "temp")],
        every_s=5.0,
    ),
    Source("meminfo", ["/proc/meminfo"]),
)
"""Sources of an ordinary Linux device, for one whose class names none."""


_hung: Set[str] = set()
"""Names of file sources that hung.

Each try costs its time and a thread for ever, so that none is tried twice by one process, however
often somebody looks at the sensors.
"""


@dataclass(frozen=True)
class Reading:
    """One look at all sensors, ``t_s`` seconds after the sampler started; names as in parsers.

    ``doubts``: why a reading that there was is unknown all the same.
    """

    t_s: float
    values: Dict[str, Optional[float]] = field(default_factory=dict)
    doubts: Doubts = field(default_factory=dict)

    def as_json(self) -> Dict[str, Any]:
        return {"t_s": round(self.t_s, 6), "values": self.values}


def hottest(values: Mapping[str, Optional[float]]) -> Optional[float]:
    """Degrees Celsius of the hottest readable ``temp/…``; None where there is none: not cool."""
    found = [v for name, v in values.items() if name.startswith("temp/") and v is not None]
    return max(found, default=None)


def read_text(path: str) -> Optional[str]:
    """The file's text, None when it cannot be read (drivers answer with many errors)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except (OSError, ValueError):
        return None


def look(source: Source, root: str = "/") -> Dict[str, Value]:
    """What one source says now, texts included; nothing when it does not answer in time."""
    with Sensors([source], root) as sensors:
        return sensors.facts()


class Sensors:
    """What ``sources`` (none: ``DEFAULT``) find under ``root`` when constructed.

    A context manager, or `close` it: streams go on until then. One thread at a time.
    """

    def __init__(self, sources: Sequence[Source] = (), root: str = "/") -> None:
        self._asker = Asker()
        self._watches = [_watch(source, root, self._asker) for source in sources or DEFAULT]
        self._owner: Dict[str, _Watch] = {}

    def __enter__(self) -> "Sensors":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def lost(self) -> List[str]:
        """The sources that answered at first and then no longer, as one would name them."""
        return [watch.name for watch in self._watches if watch.lost]

    def read(self, t_s: float, *, fresh: bool = False) -> Reading:
        """Look at all that is due. ``fresh``: also at what is usually looked at more seldom."""
        values, doubts = self._merged(t_s, fresh)
        return Reading(t_s, numbers(values), doubts)

    def facts(self) -> Dict[str, Value]:
        """All that the sources say now, texts included."""
        return self._merged(0.0, True)[0]

    def close(self) -> None:
        """End streams and the thread that reads; may be called twice."""
        for watch in self._watches:
            watch.close()
        self._asker.close()

    def _merged(self, t_s: float, fresh: bool) -> Tuple[Dict[str, Value], Doubts]:
        """Readings that may be believed.

        Of several sources that know a sensor the first that read it keeps it: a value that changes
        its source would look like a change of the device.
        """
        merged: Dict[str, Value] = {}
        doubts: Doubts = {}
        for watch in self._watches:
            for name, value in watch.values(t_s, fresh).items():
                if value is not None:
                    self._owner.setdefault(name, watch)
                if self._owner.get(name, watch) is watch:
                    merged[name] = value
            doubts.update(watch.doubts)
        values, more = believed(merged)
        doubts.update(more)
        return values, {name: why for name, why in doubts.items() if values.get(name) is None}


class _Watch:
    """One source. ``lost``: it answered once and does not any more."""

    def __init__(self, source: Source, ask: "Union[_Files, Command, Stream, None]") -> None:
        self._source, self._ask = source, ask
        self.name = " ".join(source.command) or ", ".join(getattr(ask, "patterns", ()))
        self.lost = False
        self._silent = ask is None or self.name in _hung
        self._answered = False
        self._due = 0.0
        self._last: Dict[str, Value] = {}
        self.doubts: Doubts = {}

    def values(self, t_s: float, fresh: bool) -> Dict[str, Value]:
        if self._silent or (t_s < self._due and not fresh):
            return self._last
        assert self._ask is not None
        self._due = t_s + self._source.every_s
        try:
            raw = self._ask.raw()
        except LateError:
            if isinstance(self._ask, _Files):
                _hung.add(self.name)
            self._silent, self.lost = True, self._answered
            self._last, self.doubts = dict.fromkeys(self._last), {}
            return self._last
        self._last, self.doubts = understood(self._source.parser, raw, self._source.units)
        self._answered = self._answered or any(v is not None for v in self._last.values())
        return self._last

    def close(self) -> None:
        if isinstance(self._ask, Stream):
            self._ask.close()


class _Files:
    """The files of a source, read by a thread that may be left behind in a driver."""

    def __init__(self, source: Source, root: str, asker: Asker) -> None:
        self.patterns = [os.path.join(root, path.lstrip("/")) for path in source.paths]
        self._paths = sorted({path for pattern in self.patterns for path in glob.glob(pattern)})
        self._timeout, self._asker = source.timeout_s, asker

    def raw(self) -> Raw:
        if not self._paths:
            return {}
        return self._asker.ask(self._read, self._timeout)

    def _read(self) -> Dict[str, Optional[str]]:
        return {path: read_text(path) for path in self._paths}


def _watch(source: Source, root: str, asker: Asker) -> _Watch:
    if not source.command:
        return _Watch(source, _Files(source, root, asker))
    path = program(source.command[0])
    if path is None:
        return _Watch(source, None)
    argv = [path, *source.command[1:]]
    if source.stream:
        return _Watch(source, Stream(argv, source.timeout_s))
    return _Watch(source, Command(argv, source.timeout_s))
