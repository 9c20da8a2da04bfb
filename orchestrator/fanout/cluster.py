"""Fan-out over Ray: hub actors that drive devices, and tasks for work that needs a core.

Ray is a disposable executor here: it holds no state that the database or a spool does not.
Usage statistics are off. Unless RAY_ADDRESS names a cluster to join, Ray listens on loopback only
and asks for a token that this process alone hands on.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import InfraError
from orchestrator.fanout.executor import DEVICES_PER_HUB, assign
from orchestrator.fanout.hub import Hub
from orchestrator.fanout.order import Finished, Order

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if not os.environ.get("RAY_ADDRESS"):
    # Read while Ray is imported. The first makes Ray keep 127.0.0.1 as the address of its one node,
    # which on Linux it would swap for one that other machines reach. Without the last, Ray writes
    # a token into the home folder, readable by everybody and the same for every run.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray
import ray.exceptions

T = TypeVar("T")

_CALL_S = 60.0


class Cluster:
    """Joins the cluster of RAY_ADDRESS, or starts a single-node one that ends with this process."""

    def __init__(self, devices: Iterable[str], spool: Path) -> None:
        self._hub_of = assign(devices)
        self._joined = bool(os.environ.get("RAY_ADDRESS"))
        _start(self._joined)
        actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(Hub)
        self._hubs: list[Any] = [
            actor.options(max_concurrency=DEVICES_PER_HUB + 4).remote(spool / f"hub-{n}")
            for n in range(max(self._hub_of.values(), default=0) + 1)
        ]
        self._sent: list[set[str]] = [set() for _ in self._hubs]

    def run(self, order: Order) -> Future[Finished]:
        number = self._hub_of.get(order.target.device, 0)
        self._bring_blobs(number, order.blobs)
        future = _translate(self._hubs[number].run.remote(order).future())
        future.add_done_callback(functools.partial(self._check_loss, number))
        return future

    def compute(self, function: Callable[..., T], *args: Any) -> Future[T]:
        task: Any = ray.remote(num_cpus=1, max_retries=2)(function)
        return _translate(task.remote(*args).future())

    def spooled(self) -> list[str]:
        return sorted(a for held in self._all("spooled") for a in held)

    def redeliver(self, attempt: str) -> Finished:
        for hub, held in zip(self._hubs, self._all("spooled"), strict=True):
            if attempt in held:
                finished: Finished = _get(hub.redeliver.remote(attempt))
                return finished
        raise InfraError("E-HUB-SPOOL", f"no hub holds attempt {attempt}")

    def forget(self, attempts: Sequence[str]) -> None:
        for hub in self._hubs:
            hub.forget.remote(list(attempts))

    def let_go(self, device: str) -> None:
        try:
            _get(self._hubs[self._hub_of.get(device, 0)].let_go.remote(device))
        except InfraError:
            return  # the hub is gone, and its links with it

    def abort(self) -> None:
        for hub in self._hubs:
            ray.kill(hub)

    def hub_pids(self) -> list[int]:
        return [int(pid) for pid in self._all("pid")]

    def close(self) -> None:
        for hub in self._hubs:
            try:
                _get(hub.close.remote())
            except InfraError:
                continue  # a dead hub has nothing left to close
            finally:
                ray.kill(hub)
        ray.shutdown()

    def _bring_blobs(self, number: int, blobs: dict[str, str]) -> None:
        """Only a hub on another machine lacks any; what was once brought is remembered."""
        sent, hub = self._sent[number], self._hubs[number]
        news = {sha: path for sha, path in blobs.items() if sha not in sent}
        if news:
            for sha in _get(hub.lacks.remote(news)):
                _get(hub.receive.remote(sha, Path(news[sha]).read_bytes()))
            sent.update(news)

    def _check_loss(self, number: int, future: Future[Finished]) -> None:
        """A hub that is started again, perhaps on another machine, may have nothing."""
        if isinstance(future.exception(), InfraError):
            self._sent[number] = set()

    def _all(self, method: str) -> list[Any]:
        return [_get(getattr(hub, method).remote()) for hub in self._hubs]


def _start(join: bool) -> None:
    # Ray prints what befell its workers on stdout, where results belong; it has no other switch.
    # E-HUB-LOST says the same where the user looks.
    ray._private.worker._worker_logs_enabled = False
    try:
        if join:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        else:
            ray.init(
                address="local",
                num_cpus=os.cpu_count(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InfraError(
            "E-RAY-START",
            f"cannot {'join' if join else 'start'} Ray: {error}",
            mend="--executor inprocess runs without Ray",
            retryable=False,
        ) from error


def _get(ref: Any) -> Any:
    try:
        return ray.get(ref, timeout=_CALL_S)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise _lost(error) from error


def _lost(error: BaseException) -> InfraError:
    first = str(error).strip().splitlines()
    return InfraError("E-HUB-LOST", f"hub gone: {first[0] if first else type(error).__name__}")


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
            ours.set_exception(_lost(error))
        else:
            ours.set_exception(error)

    raw.add_done_callback(done)
    return ours
