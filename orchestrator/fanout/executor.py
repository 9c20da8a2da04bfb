"""What the coordinator needs of a fan-out, whether Ray is behind it or threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from orchestrator.errors import InputError
from orchestrator.fanout.hub_job import Order
from orchestrator.results.finished import Finished

T = TypeVar("T")

DEVICES_PER_HUB = 32
"""One process saturates near 1,250 paramiko round trips a second: about this many devices."""


@dataclass(frozen=True)
class Seat:
    """One actor: the ``number``-th on a named hub, or (None) on the coordinator's own host."""

    hub: str | None
    number: int


class Executor(Protocol):
    def run(self, order: Order) -> Future[Finished]:
        """Send a job to the hub that reaches its device.

        The future raises InfraError E-HUB-LOST when the hub died under it.
        """

    def compute(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Run a pure function somewhere with a free core."""

    def spooled(self) -> list[str]:
        """IDs of finished attempts that hubs still hold."""

    def redeliver(self, attempt: str) -> Finished:
        """The spooled result of an attempt.

        Raises InfraError E-HUB-SPOOL: no hub holds it; E-RESULT-HASH, E-RESULT-VERSION,
        E-RESULT-FORM: what it holds cannot be read.
        """

    def forget(self, attempts: Sequence[str]) -> None: ...

    def let_go(self, device: str) -> None: ...

    def abort(self) -> None:
        """End every hub now. Workers on devices end themselves when their hub is gone."""

    def hub_pids(self) -> list[int]: ...

    def close(self) -> None: ...


def assign(devices: Iterable[str], hubs: Mapping[str, str] | None = None) -> dict[str, Seat]:
    """Device -> the actor that drives it; the same for the same set of devices.

    ``hubs``: device -> name of its hub, for those that the coordinator's host does not reach.
    """
    named = hubs or {}
    taken: Counter[str | None] = Counter()
    found = {}
    for device in sorted(set(devices)):
        hub = named.get(device)
        found[device] = Seat(hub, taken[hub] // DEVICES_PER_HUB)
        taken[hub] += 1
    return found


def refuse_hubs(hubs: Mapping[str, str]) -> None:
    """Threads reach what this host reaches. Raises InputError E-HUB-INPROCESS for anything else."""
    if hubs:
        device, hub = min(hubs.items())
        raise InputError(
            "E-HUB-INPROCESS",
            f"{device} is reached from hub {hub}, not from here",
            fix="--executor ray with RAY_ADDRESS, or --select cells of other devices",
        )
