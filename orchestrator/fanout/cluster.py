"""Fan-out over Ray: hub actors that drive devices, and tasks for work that needs a core.

Ray is a disposable executor here: it holds no state that the database or a spool does not.
Usage statistics are off. Unless RAY_ADDRESS names a cluster to join, Ray listens on loopback only
and asks for a token that this process alone hands on.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import InfraError
from orchestrator.fanout.executor import DEVICES_PER_HUB, Seat, assign
from orchestrator.fanout.hub import Hub
from orchestrator.fanout.hub_job import Order
from orchestrator.fanout.node import RESOURCE
from orchestrator.fanout.ray_start import NodeAffinitySchedulingStrategy, failed, ray, start
from orchestrator.results.encoding import VERSION, decode
from orchestrator.results.finished import Finished, unexpected

T = TypeVar("T")

CALL_S = 60.0
"""Longest a hub may take for anything but an order; its process may be starting."""
RETURN_S = 20.0
"""How long an order waits for a hub that is gone to come back."""
PARTING_S = 15.0
"""Longest that hubs are waited for at the end, and that a device's session takes to end."""
WATCH_S = 5.0
"""How often a hub that works on an order is asked whether it still does."""
SILENT_S = 20.0
"""How long it may take to say so."""


class _Hub:
    """One actor and what is known of it. Calls block, each for a bounded time."""

    def __init__(self, seat: Seat, actor: Any) -> None:
        self.seat, self.actor = seat, actor
        self.lost = False
        self._sent: set[str] = set()
        self._sending = threading.Lock()

    def carry_out(self, order: Order) -> Finished:
        """Raises InfraError E-HUB-LOST, E-TRANSFER-HASH; OSError for a blob that is not here."""
        try:
            self._await()
            self._bring(order.files)
            return self._watched(self.actor.run_encoded.remote(order))
        except InfraError as error:
            self.lost = error.id == "E-HUB-LOST"
            self._sent = set()  # a hub that is started again, perhaps elsewhere, may have nothing
            raise

    def _await(self) -> None:
        """Until the hub answers. Ray would keep an order for one that is gone for ever.

        Raises InfraError E-HUB-VERSION: it answers, and would send what is not understood here.
        """
        give_up = time.monotonic() + RETURN_S
        while True:
            try:
                form = self._get(self.actor.form.remote(), RETURN_S if self.lost else CALL_S)
            except InfraError as error:
                if isinstance(error.__cause__, AttributeError):  # it has no such method
                    raise self._other_version("an older") from error
                if error.id != "E-HUB-LOST" or time.monotonic() >= give_up:
                    raise
                time.sleep(1.0)
            else:
                if form != VERSION:
                    raise self._other_version("another")
                return

    def call(self, method: str, *arguments: Any, seconds: float = CALL_S) -> Any:
        return self._get(getattr(self.actor, method).remote(*arguments), seconds)

    def _bring(self, blobs: dict[str, str]) -> None:
        """Only a hub on another machine lacks any; what was once brought is remembered."""
        with self._sending:
            news = {sha: path for sha, path in blobs.items() if sha not in self._sent}
            if news:
                for sha in self.call("lacks", news):
                    self.call("receive", sha, Path(news[sha]).read_bytes())
                self._sent.update(news)

    def _watched(self, ref: Any) -> Finished:
        """The answer. Ray notices a process that dies at once, but not a network that is cut."""
        while not ray.wait([ref], timeout=WATCH_S)[0]:
            try:
                self._get(self.actor.pid.remote(), SILENT_S)
            except InfraError:
                if not ray.wait([ref], timeout=WATCH_S)[0]:
                    ray.cancel(ref)
                    raise
        return decode(self._get(ref, CALL_S))

    def _get(self, ref: Any, seconds: float) -> Any:
        try:
            answer = ray.get(ref, timeout=seconds)
        except ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, InfraError):
                raise cause from error
            raise unexpected(cause or error, self.seat.hub or "hub") from cause
        except ray.exceptions.GetTimeoutError as error:
            self.lost = True
            raise self._gone(f"no answer within {seconds:g} s") from error
        except ray.exceptions.RayError as error:
            self.lost = True
            raise self._gone(_first_line(error)) from error
        self.lost = False
        return answer

    def _other_version(self, which: str) -> InfraError:
        return InfraError(
            "E-HUB-VERSION",
            f"the hub runs {which} Assay, whose answers are not read here",
            where=self.seat.hub,
            fix="install the same Assay on every hub",
            retryable=False,
        )

    def _gone(self, why: str) -> InfraError:
        return InfraError("E-HUB-LOST", f"hub gone: {why}", where=self.seat.hub)


class Cluster:
    """Joins the cluster of RAY_ADDRESS, or starts a single-node one that ends with this process.

    ``spool``: folder of the hubs on this host. ``hubs``: device -> hub, for those that other hosts
    reach; these keep what they spool in a folder of their own, under ``farm``'s name.
    Raises InfraError E-RAY-START, E-RAY-SLOW, E-RAY-VERSION, E-HUB-UNKNOWN.
    """

    def __init__(
        self,
        devices: Iterable[str],
        spool: Path,
        *,
        hubs: Mapping[str, str] | None = None,
        farm: str = "farm",
    ) -> None:
        seats = assign(devices, hubs)
        joined = bool(os.environ.get("RAY_ADDRESS"))
        start(joined)
        try:
            _check_offered({seat.hub for seat in seats.values() if seat.hub}, joined)
            self._hub_of = self._seated(seats, spool, farm)
        except InfraError:
            ray.shutdown()
            raise
        except Exception as error:
            ray.shutdown()
            raise failed(error, joined) from error

    def _seated(self, seats: Mapping[str, Seat], spool: Path, farm: str) -> dict[str, _Hub]:
        """The hub of each device; all of them are begun, and not waited for."""
        here = ray.get_runtime_context().get_node_id()
        self._task: dict[str, Any] = {
            "num_cpus": min(1, _cpus(here)),
            "scheduling_strategy": _on(here),
        }
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(Hub)
        made = {}
        for seat in {Seat(None, 0), *seats.values()}:
            folder = spool / f"hub-{seat.number}"
            where: dict[str, Any] = {"scheduling_strategy": _on(here)}
            if seat.hub is not None:
                folder = Path("~/.cache/assay/hub", farm, f"{seat.hub}-{seat.number}")
                where = {"resources": {RESOURCE + seat.hub: 0.001}}
            options = actor.options(max_concurrency=DEVICES_PER_HUB + 4, **where)
            made[seat] = _Hub(seat, options.remote(folder, seat.hub))
        self._here, self._hubs = made[Seat(None, 0)], list(made.values())
        return {device: made[seat] for device, seat in seats.items()}

    def run(self, order: Order) -> Future[Finished]:
        """Each order has a thread of its own: while one hub is silent, others go on."""
        future: Future[Finished] = Future()
        future.set_running_or_notify_cancel()
        hub = self._hub_of.get(order.target.device, self._here)

        def work() -> None:
            try:
                future.set_result(hub.carry_out(order))
            except BaseException as error:  # noqa: BLE001  handed on to whoever waits for it
                future.set_exception(error)

        # A daemon: after an abort the program must end although a hub has not answered yet.
        threading.Thread(target=work, name=f"cell-{order.target.device}", daemon=True).start()
        return future

    def compute(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """On this host: tasks read files and the store, and a baseline is booked to this CPU."""
        task: Any = ray.remote(max_retries=2, **self._task)(function)
        return _translate(task.remote(*args).future())

    def spooled(self) -> list[str]:
        """Of the hubs that answer: what a silent one holds is asked for by the next run."""
        return sorted(a for held in self._all("spooled", CALL_S).values() for a in held)

    def redeliver(self, attempt: str) -> Finished:
        for hub, held in self._all("spooled", CALL_S).items():
            if attempt in held:
                return decode(hub.call("redeliver", attempt))
        raise InfraError("E-HUB-SPOOL", f"no hub holds attempt {attempt}")

    def forget(self, attempts: Sequence[str]) -> None:
        for hub in self._hubs:
            hub.actor.forget.remote(list(attempts))

    def let_go(self, device: str) -> None:
        hub = self._hub_of.get(device, self._here)
        if not hub.lost:
            with contextlib.suppress(InfraError):  # the hub is gone, and its links with it
                hub.call("let_go", device, seconds=PARTING_S)

    def abort(self) -> None:
        for hub in self._hubs:
            ray.kill(hub.actor)

    def hub_pids(self) -> list[int]:
        return [int(hub.call("pid")) for hub in self._hubs]

    def close(self) -> None:
        self._all("close", PARTING_S)
        self.abort()
        ray.shutdown()

    def _all(self, method: str, seconds: float) -> dict[_Hub, Any]:
        """What the hubs answer to a call made to all at once. A hub that is gone is left out."""
        refs = {getattr(hub.actor, method).remote(): hub for hub in self._hubs if not hub.lost}
        ready, late = (
            ray.wait(list(refs), num_returns=len(refs), timeout=seconds) if refs else ([], [])
        )
        found = {}
        for ref in ready:
            with contextlib.suppress(InfraError):
                found[refs[ref]] = refs[ref]._get(ref, seconds)
        for ref in late:
            refs[ref].lost = True
        return found


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, False)


def _nodes() -> Any:
    return ray.nodes()  # type: ignore[no-untyped-call]


def _cpus(here: str) -> float:
    """What the node offers to tasks: a host may have joined its cluster with none."""
    found = (node["Resources"].get("CPU", 0.0) for node in _nodes() if node["NodeID"] == here)
    return float(next(found, 0.0))


def _offered() -> set[str]:
    """Names of the hubs that living nodes of the cluster are."""
    resources = (name for node in _nodes() if node["Alive"] for name in node["Resources"])
    return {name.removeprefix(RESOURCE) for name in resources if name.startswith(RESOURCE)}


def _check_offered(wanted: set[str], joined: bool) -> None:
    offered = _offered() if wanted else set()
    missing = ", ".join(sorted(wanted - offered))
    if missing:
        raise InfraError(
            "E-HUB-UNKNOWN",
            f"no Ray node is hub {missing} (hubs: {', '.join(sorted(offered)) or 'none'})",
            fix="`assay hub start NAME` on the host that reaches its devices"
            + ("" if joined else ", and set RAY_ADDRESS here"),
            retryable=False,
        )


def _first_line(error: BaseException) -> str:
    first = str(error).strip().splitlines()
    return first[0] if first else type(error).__name__


def _translate(raw: Future[Any]) -> Future[Any]:
    """Ray's future with Ray's exceptions turned into ours."""
    ours: Future[Any] = Future()
    ours.set_running_or_notify_cancel()

    def done(finished: Future[Any]) -> None:
        error = finished.exception()
        if error is None:
            ours.set_result(finished.result())
        elif isinstance(error, ray.exceptions.RayTaskError):
            cause = getattr(error, "cause", None)
            ours.set_exception(cause if isinstance(cause, BaseException) else error)
        elif isinstance(error, ray.exceptions.RayError):
            ours.set_exception(InfraError("E-HUB-LOST", f"hub gone: {_first_line(error)}"))
        else:
            ours.set_exception(error)

    raw.add_done_callback(done)
    return ours
