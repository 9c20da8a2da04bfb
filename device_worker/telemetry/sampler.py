"""A thread that looks at the sensors at a fixed rate, and the summary of what it saw."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Dict, List, Optional, Sequence, Tuple

from device_worker import shortage
from device_worker.telemetry.parsers import android, raspberry
from device_worker.telemetry.plausible import Doubts, lines, still
from device_worker.telemetry.sensors import Reading, Sensors, hottest
from device_worker.wire import Telemetry

_PATIENCE = 10.0
"""Seconds to wait for one look.

Each source has a shorter time of its own: only where several do not answer does this matter, and
then it keeps them from holding up the measurement.
"""
_CLOCK_TOLERANCE = 0.01
_THROTTLED = "flags/throttled"
_DECIDING = ("freq/", "flags/", "status/")
"""What tells of changed clocks: once it can no longer be read, they may have changed."""


class Sampler:
    """Samples from ``start`` to ``stop``: one reading at each end and ``hz`` a second between.

    ``hz`` <= 0 takes the two end readings only. Timestamps are monotonic, 0 at ``start``. The
    sensors are the sampler's own from ``start`` on, and closed after the last reading.
    ``watched``: the run depends on the temperature (`summarise`); ``heated``: it is to heat the
    device (`plausible.still`).
    """

    def __init__(
        self,
        hz: float,
        sensors: Optional[Sensors] = None,
        *,
        watched: bool = False,
        heated: bool = False,
    ) -> None:
        self._interval = 1 / hz if hz > 0 else None
        self._sensors, self._watched, self._heated = sensors, watched, heated
        self._readings: List[Reading] = []
        self._lost: List[str] = []
        self._first, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._hung = False
        self._failed: Optional[Exception] = None

    def start(self) -> None:
        """Returns once the first reading is there, or after a bounded wait for it.

        Raises what looking raises, WorkerError where the device has no thread for it.
        """
        self._begin = time.monotonic()
        shortage.start(self._thread)
        self._first.wait(_PATIENCE)
        if self._failed is not None:
            raise self._failed

    def latest(self) -> Optional[Reading]:
        """The newest reading, None before there is one; costs next to nothing."""
        return self._readings[-1] if self._readings else None

    def stop(self) -> List[Reading]:
        """Takes the last reading and returns all. A hung sensor read is left behind."""
        self._stop.set()
        if not self._hung and self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        self._hung = self._thread.is_alive()
        return self._believed()[0]

    def summary(self) -> Telemetry:
        """What ``stop`` returned, in short; says which sensors stopped answering.

        Raises as ``start``: nobody watched from then on.
        """
        if self._failed is not None:
            raise self._failed
        readings, still = self._believed()
        told = summarise(readings, hung=self._hung, lost=self._lost, watched=self._watched)
        if still and self._watched and all(hottest(r.values) is None for r in readings):
            told.reasons.extend("temperature unknown: %s" % line for line in lines(still))
            told = replace(told, timing_valid=False)
        return told

    def notes(self) -> List[str]:
        """Which readings were not believed, and why: one line a sensor, of its first time."""
        found: Doubts = {}
        for reading in list(self._readings):
            for name, why in reading.doubts.items():
                found.setdefault(name, why)
        return lines({**found, **self._believed()[1]})

    def _believed(self) -> Tuple[List[Reading], Doubts]:
        """All readings, without the temperatures that never changed."""
        readings = list(self._readings)
        doubts = still([(r.t_s, r.values) for r in readings], self._heated)
        if not doubts:
            return readings, doubts
        unknown = dict.fromkeys(doubts)
        return [replace(r, values={**r.values, **_only(r, unknown)}) for r in readings], doubts

    def _run(self) -> None:
        try:
            self._sample()
        except Exception as error:  # noqa: BLE001  handed on to whoever asks for the readings
            self._failed = error
        finally:
            self._first.set()

    def _sample(self) -> None:
        with self._sensors or Sensors() as sensors:
            self._look(sensors, fresh=True)
            self._first.set()
            while not self._stop.wait(self._interval):
                self._look(sensors)
            self._look(sensors, fresh=True)
            self._lost = sensors.lost

    def _look(self, sensors: Sensors, fresh: bool = False) -> None:
        t_s = time.monotonic() - self._begin
        self._readings.append(sensors.read(t_s, fresh=fresh))


def _only(reading: Reading, names: Dict[str, None]) -> Dict[str, None]:
    return {name: None for name in names if name in reading.values}


def summarise(
    readings: List[Reading],
    *,
    hung: bool = False,
    lost: Sequence[str] = (),
    watched: bool = False,
) -> Telemetry:
    """Sensors at both ends and at their highest; timing is invalid when clocks or flags moved.

    A clock moved when its highest and lowest readable values differ by more than 1 % of the
    highest. What could never be read is None and invalidates nothing; a clock or flag that was
    known at the start and is not at the end does, and so does a source that was ``lost``. Where a
    ceiling or a soak has the temperature ``watched``, losing it does too: unknown is never cool.
    """
    reasons = ["%s stopped answering" % name for name in lost]
    if hung:
        reasons.append("the sensors stopped answering")
    if not readings:
        return Telemetry(0, timing_valid=not reasons, reasons=reasons)
    silent = bool(reasons)
    rows = [reading.values for reading in readings]
    unwatched = _unwatched(rows) if watched else None
    if unwatched is not None:
        reasons.append(unwatched)
    deciding = (*_DECIDING, "temp/") if watched and unwatched is None else _DECIDING
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        reason = _moved(name, _values(rows, name))
        gone = rows[0].get(name) is not None and rows[-1].get(name) is None
        if reason is None and gone and name.startswith(deciding) and not silent:
            reason = "%s became unreadable" % name
        if reason is not None:
            reasons.append(reason)
    return Telemetry(
        samples=len(readings),
        start=dict(rows[0]),
        end=dict.fromkeys(names) if hung else dict(rows[-1]),
        max={name: max(_values(rows, name), default=None) for name in names},
        timing_valid=not reasons,
        reasons=reasons,
    )


def _unwatched(rows: List[Dict[str, Optional[float]]]) -> Optional[str]:
    """That some readings have no temperature at all, while others have one."""
    blind = sum(hottest(row) is None for row in rows)
    if blind in (0, len(rows)):
        return None
    return "temperature unknown in %d of %d readings" % (blind, len(rows))


def _moved(name: str, values: List[float]) -> Optional[str]:
    """Why these readings spoil a timing, or None."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    kind, _, short = name.partition("/")
    if kind == "freq" and high - low > _CLOCK_TOLERANCE * high:
        return "%s moved between %d and %d kHz" % (short, low, high)
    if name == _THROTTLED and values:
        return _throttling([int(value) for value in values])
    if name == android.OVERRIDE and high:
        return "the thermal status was a forced one: whether it throttled is not known"
    if kind == "flags" and low != high:
        if name.endswith("_count"):
            return "%s rose from %d to %d" % (short, low, high)
        seen = ", ".join(hex(int(value)) for value in dict.fromkeys(values))
        return "%s flags changed: %s" % (short, seen)
    if kind == "status" and low != high:
        return "%s status moved between %d and %d" % (short, low, high)
    return None


def _throttling(values: List[int]) -> Optional[str]:
    """The Raspberry Pi's flags in words: what came up, or what held throughout.

    A board that is throttled all the time has steady clocks, but not its own.
    """
    seen = ", ".join(hex(value) for value in dict.fromkeys(values))
    came = raspberry.happened(values[0], _bits(values[1:]))
    if len(set(values)) > 1:
        return "throttled flags changed: %s (%s)" % (seen, ", ".join(came or ()) or "cleared")
    now = [word for word in raspberry.words(values[0]) if word.endswith(" now")]
    return "throttled flags %s throughout (%s)" % (seen, ", ".join(now)) if now else None


def _bits(values: List[int]) -> int:
    """All bits that any of the values has."""
    found = 0
    for value in values:
        found |= value
    return found


def _values(rows: List[Dict[str, Optional[float]]], name: str) -> List[float]:
    return [value for value in (row.get(name) for row in rows) if value is not None]
