"""What the coordinator needs of a fan-out, whether Ray is behind it or threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from orchestrator.fanout.order import Finished, Order

T = TypeVar("T")

DEVICES_PER_HUB = 32
"""One process saturates near 1,250 paramiko round trips a second: about this many devices."""


class Executor(Protocol):
    def run(self, order: Order) -> Future[Finished]:
        """Send an order to the hub that reaches its device. The future raises InfraError

        E-HUB-LOST when the hub died under it.
        """

    def compute(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Run a pure function somewhere with a free core."""

    def spooled(self) -> list[str]:
        """IDs of finished attempts that hubs still hold."""

    def redeliver(self, attempt: str) -> Finished: ...

    def forget(self, attempts: Sequence[str]) -> None: ...

    def let_go(self, device: str) -> None: ...

    def abort(self) -> None:
        """End every hub now. Workers on devices end themselves when their hub is gone."""

    def hub_pids(self) -> list[int]: ...

    def close(self) -> None: ...


def assign(devices: Iterable[str]) -> dict[str, int]:
    """Device -> hub number, DEVICES_PER_HUB to a hub, the same for the same set of devices."""
    return {d: i // DEVICES_PER_HUB for i, d in enumerate(sorted(set(devices)))}
