"""The in-process twin: the same matrix under a debugger, no Ray, one hub, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.fanout.hub import Hub
from orchestrator.fanout.hub_job import Order
from orchestrator.results.encoding import decode
from orchestrator.results.finished import Finished

T = TypeVar("T")


class InProcess:
    def __init__(self, spool: Path) -> None:
        self._hub = Hub(spool)
        self._aborted = False
        self._tasks = ThreadPoolExecutor(2, thread_name_prefix="task")

    def run(self, order: Order) -> Future[Finished]:
        """One thread per order, and so per device: a device is given one order at a time."""
        future: Future[Finished] = Future()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                future.set_result(self._hub.run(order))
            except BaseException as error:  # noqa: BLE001  handed on to whoever waits for it
                future.set_exception(error)

        # A daemon: after an abort the program must end although a device has not answered yet.
        threading.Thread(target=work, name=f"cell-{order.target.device}", daemon=True).start()
        return future

    def compute(self, function: Callable[..., T], *args: Any) -> Future[T]:
        return self._tasks.submit(function, *args)

    def spooled(self) -> list[str]:
        return self._hub.spooled()

    def redeliver(self, attempt: str) -> Finished:
        return decode(self._hub.redeliver(attempt))

    def forget(self, attempts: Sequence[str]) -> None:
        self._hub.forget(list(attempts))

    def let_go(self, device: str) -> None:
        self._hub.let_go(device)

    def abort(self) -> None:
        self._aborted = True

    def hub_pids(self) -> list[int]:
        return [self._hub.pid()]

    def close(self) -> None:
        self._tasks.shutdown(wait=True, cancel_futures=True)
        if not self._aborted:
            self._hub.close()
