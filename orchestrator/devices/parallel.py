"""Work on several devices at once, where one that hangs holds nobody up."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 4
GRACE_S = 10.0
"""How long work that is told to stop is waited for: a step on a device has its own deadline."""
_POLL_S = 0.2


def side_by_side(
    names: Sequence[str],
    work: Callable[[str], T],
    late: Callable[[str], T],
    *,
    limit_s: float,
    stop: threading.Event,
    at_once: int = AT_ONCE,
) -> Generator[tuple[str, T]]:
    """Yield (name, result) of each as it comes.

    ``late``: the result of one that took ``limit_s``; its thread is left behind. ``work`` must not
    raise, and should look at ``stop``, which is set when the caller leaves early.
    """
    done: queue.Queue[tuple[str, T]] = queue.Queue()

    def perform(name: str) -> None:
        done.put((name, work(name)))

    waiting, running = list(names), dict[str, tuple[threading.Thread, float]]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                thread = threading.Thread(
                    target=perform, args=(name,), name=f"assay-{name}", daemon=True
                )
                running[name] = thread, time.monotonic() + limit_s
                thread.start()
            with contextlib.suppress(queue.Empty):
                name, result = done.get(timeout=_POLL_S)
                if running.pop(name, None) is not None:
                    yield name, result
            for name in [n for n, (_, end) in running.items() if time.monotonic() > end]:
                del running[name]
                yield name, late(name)
    finally:
        stop.set()
        give_up = time.monotonic() + GRACE_S
        for thread, _ in running.values():
            thread.join(max(0.0, give_up - time.monotonic()))
