"""Seconds that a test gives and takes, so that how busy the machine is decides nothing.

What has to happen gets PATIENCE: only a hang takes so long. A deadline that has to be missed is
missed when the test says so: what was asked for has begun, and then the clock is put forward.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

real = time.monotonic

PATIENCE = 200.0
"""Seconds; below pytest's own limit, so that a hang still ends as the error it ends as."""


class Clock:
    """In the place of time.monotonic: as ever, until it is stopped or put forward."""

    def __init__(self) -> None:
        self._real, self._ahead = time.monotonic, 0.0
        self._stopped: float | None = None

    def __call__(self) -> float:
        return self._ahead + (self._real() if self._stopped is None else self._stopped)

    def forward(self, seconds: float) -> None:
        self._ahead += seconds

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """No deadline that is looked at passes meanwhile."""
        self._stopped = self._real()
        try:
            yield
        finally:
            self._ahead -= self._real() - self._stopped
            self._stopped = None

    def expire(self, begun: Callable[[], object]) -> None:
        """Let every deadline of PATIENCE that runs be over as soon as ``begun``."""
        when(begun, lambda: self.forward(PATIENCE + 1))


def when(reached: Callable[[], object], then: Callable[[], object]) -> None:
    """Do ``then``, in a thread of its own, as soon as ``reached``."""

    def wait() -> None:
        end = real() + PATIENCE
        while not reached():
            if real() > end:
                return  # what the test then waits for in vain says more
            time.sleep(0.02)
        then()

    threading.Thread(target=wait, daemon=True).start()
