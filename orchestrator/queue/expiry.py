"""When is somebody else's lease dead? Judged by the observer's own monotonic clock alone.

Clocks of different hosts are never compared (docs/decisions/0003-leases.md).
"""

from __future__ import annotations

from dataclasses import dataclass

PATIENCE = 30.0
"""Seconds without a heartbeat after which a lease is taken away."""


@dataclass(frozen=True)
class _Seen:
    token: int
    counter: int
    since: float


class LeaseWatch:
    """Remembers when each device's (token, counter) was first seen at its present value."""

    def __init__(self, patience: float = PATIENCE) -> None:
        if patience <= 0:
            raise ValueError("patience must be positive")
        self.patience = patience
        self._seen: dict[str, _Seen] = {}

    def observe(self, device: str, token: int, counter: int, now: float) -> bool:
        """True when the lease did not move for ``patience`` seconds.

        ``now`` is the observer's monotonic clock in seconds. The first sight of a value only
        starts the wait, however old the value may be.
        """
        seen = self._seen.get(device)
        if seen is None or (seen.token, seen.counter) != (token, counter):
            self._seen[device] = _Seen(token, counter, now)
            return False
        return now - seen.since >= self.patience

    def forget(self, device: str) -> None:
        """The lease is free: the next holder starts with a fresh wait."""
        self._seen.pop(device, None)
