"""A thread that looks at the sensors at a fixed rate, and the summary of what it saw."""

from __future__ import annotations

import threading
import time
from typing import Dict, List, Optional

from device_worker.telemetry.sensors import Reading, Sensors
from device_worker.wire import Telemetry

_PATIENCE = 2.0
"""Seconds to wait for one look: a hung driver must not hold up the measurement."""
_CLOCK_TOLERANCE = 0.01


class Sampler:
    """Samples from ``start`` to ``stop``: one reading at each end and ``hz`` a second between.

    ``hz`` <= 0 takes the two end readings only. Timestamps are monotonic, 0 at ``start``.
    """

    def __init__(self, hz: float, sensors: Optional[Sensors] = None) -> None:
        self._interval = 1 / hz if hz > 0 else None
        self._sensors = sensors
        self._readings: List[Reading] = []
        self._first, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._hung = False

    def start(self) -> None:
        """Returns once the first reading is there, or after a bounded wait for it."""
        self._begin = time.monotonic()
        self._thread.start()
        self._first.wait(_PATIENCE)

    def stop(self) -> List[Reading]:
        """Takes the last reading and returns all. A hung sensor read is left behind."""
        self._stop.set()
        if not self._hung and self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        self._hung = self._thread.is_alive()
        return list(self._readings)

    def latest(self) -> Optional[Reading]:
        """The newest reading, None before there is one; costs next to nothing."""
        return self._readings[-1] if self._readings else None

    def summary(self) -> Telemetry:
        """What ``stop`` returned, in short; says so when the sensors stopped answering."""
        return summarise(list(self._readings), hung=self._hung)

    def _run(self) -> None:
        sensors = self._sensors or Sensors()
        self._look(sensors)
        self._first.set()
        while not self._stop.wait(self._interval):
            self._look(sensors)
        self._look(sensors)

    def _look(self, sensors: Sensors) -> None:
        self._readings.append(sensors.read(time.monotonic() - self._begin))


def summarise(readings: List[Reading], *, hung: bool = False) -> Telemetry:
    """Sensors at both ends and at their highest; timing is invalid when clocks or flags moved.

    A clock moved when its highest and lowest readable values differ by more than 1 % of the
    highest. What could not be read is None and invalidates nothing.
    """
    reasons: List[str] = []
    if hung:
        reasons.append("the sensors stopped answering")
    if not readings:
        return Telemetry(0, timing_valid=not reasons, reasons=reasons)
    rows = [reading.values for reading in readings]
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        values = _values(rows, name)
        low, high = min(values, default=0.0), max(values, default=0.0)
        if name.startswith("freq/") and high - low > _CLOCK_TOLERANCE * high:
            reasons.append("%s moved between %d and %d kHz" % (name[5:], low, high))
        if name.startswith("flags/") and low != high:
            seen = ", ".join(hex(int(value)) for value in dict.fromkeys(values))
            reasons.append("%s flags changed: %s" % (name[6:], seen))
    return Telemetry(
        samples=len(readings),
        start=dict(rows[0]),
        end=dict.fromkeys(names) if hung else dict(rows[-1]),
        max={name: max(_values(rows, name), default=None) for name in names},
        timing_valid=not reasons,
        reasons=reasons,
    )


def _values(rows: List[Dict[str, Optional[float]]], name: str) -> List[float]:
    return [value for value in (row.get(name) for row in rows) if value is not None]
