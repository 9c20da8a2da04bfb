"""A time limit for calls that have none of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def bounded(
    call: Callable[[], T],
    seconds: float,
    abandon: Callable[[], object],
    interrupt: Callable[[], object] | None = None,
) -> T:
    """The result or exception of ``call``; TimeoutError after ``seconds``.

    It runs in a daemon thread, because name resolution, key agents and parts of paramiko wait
    without limit. On a timeout ``abandon`` is called; when the caller itself is interrupted
    (Ctrl-C), ``interrupt``, or without it also ``abandon``. They must make ``call`` give up (by
    closing its socket, say) and must not block.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=work, daemon=True, name="assay-bounded").start()
    try:
        finished = done.wait(seconds)
    except BaseException:
        (interrupt or abandon)()
        raise
    if not finished:
        abandon()
        raise TimeoutError
    if errors:
        raise errors[0]
    return results[0]
