"""The in-process twin: the same matrix under a debugger, no Ray, one hub, threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.fanout.executor import DEVICES_PER_HUB
from orchestrator.fanout.hub import Hub
from orchestrator.fanout.order import Finished, Order

T = TypeVar("T")


class InProcess:
    def __init__(self, devices: Iterable[str], spool: Path) -> None:
        threads = max(1, min(len(set(devices)), DEVICES_PER_HUB))
        self._hub = Hub(spool)
        self._cells = ThreadPoolExecutor(threads, thread_name_prefix="cell")
        self._tasks = ThreadPoolExecutor(2, thread_name_prefix="task")

    def run(self, order: Order) -> Future[Finished]:
        return self._cells.submit(self._hub.run, order)

    def compute(self, function: Callable[..., T], *args: Any) -> Future[T]:
        return self._tasks.submit(function, *args)

    def spooled(self) -> list[str]:
        return self._hub.spooled()

    def redeliver(self, attempt: str) -> Finished:
        return self._hub.redeliver(attempt)

    def forget(self, attempts: Sequence[str]) -> None:
        self._hub.forget(list(attempts))

    def let_go(self, device: str) -> None:
        self._hub.let_go(device)

    def hub_pids(self) -> list[int]:
        return [self._hub.pid()]

    def close(self) -> None:
        self._cells.shutdown(wait=True, cancel_futures=True)
        self._tasks.shutdown(wait=True, cancel_futures=True)
        self._hub.close()
