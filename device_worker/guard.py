"""Watching over a run: its temperature against a ceiling, the device's clock against itself."""

from __future__ import annotations

import time
from typing import Callable, List, Optional

from device_worker.errors import WorkerError
from device_worker.telemetry.sensors import Reading, hottest

_CLOCK_TOLERANCE_S = 1.0
"""More than a clock that is only being slewed drifts in a cell's time."""


class Guard:
    """Asked after every inference; looks only when the sampler has something new.

    ``celsius``: the hottest readable temperature of the newest reading; ``max_c``: of all so far.
    """

    def __init__(self, ceiling_c: Optional[float], latest: Callable[[], Optional[Reading]]) -> None:
        self._ceiling, self._latest = ceiling_c, latest
        self._seen: Optional[Reading] = None
        self.readings = 0
        self.celsius: Optional[float] = None
        self.max_c: Optional[float] = None

    def check(self) -> None:
        """Raises WorkerError E-CEILING (infra_error) when a reading lies above the ceiling.

        Infrastructure trouble, because heat says nothing of the model; worth another attempt,
        because the start gate lets the device cool first.
        """
        reading = self._latest()
        if reading is self._seen or reading is None:
            return
        self._seen = reading
        self.readings += 1
        self.celsius = hottest(reading.values)
        if self.celsius is None:
            return
        self.max_c = self.celsius if self.max_c is None else max(self.max_c, self.celsius)
        if self._ceiling is not None and self.celsius > self._ceiling:
            raise WorkerError(
                "infra_error",
                "E-CEILING",
                "stopped at %g °C, above the ceiling of %g °C" % (self.celsius, self._ceiling),
                "cool the device, or give it time with gate.settle_s",
            )

    def notes(self) -> List[str]:
        """What could never be watched. Unknown is no reason to stop, and none to call it cool.

        A temperature that was known and got lost spoils the timing: telemetry.sampler tells.
        """
        if self._ceiling is None or self.max_c is not None:
            return []
        return ["temperature unknown: the ceiling of %g °C was not watched" % self._ceiling]


class Clock:
    """The wall clock as it was at the start, carried on by the monotonic one.

    A board without a battery for its clock may jump by years when its network comes up.
    """

    def __init__(self) -> None:
        self.started, self._begin = time.time(), time.monotonic()

    def now(self) -> float:
        """Seconds since 1970 on the clock of the start; never jumps."""
        return self.started + time.monotonic() - self._begin

    def notes(self) -> List[str]:
        """That the device's clock jumped since the start, by how much."""
        jump = time.time() - self.now()
        if abs(jump) <= _CLOCK_TOLERANCE_S:
            return []
        return ["the device's clock jumped by %+.1f s during the run, or the device slept" % jump]
