"""Trying something that may crash in a forked child first, so that a crash gets a name."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Callable, Optional

_PATIENCE = 120.0
_POLL = 0.002


def crash_signal(attempt: Callable[[], None]) -> Optional[str]:
    """Name of the signal that ends ``attempt`` in a child process, None if it is survived.

    Whatever it raises counts as survived: the caller is about to see it for itself. A child that
    hangs is killed and counts as survived too. ``attempt`` runs in a fork of this process, so it
    must neither need other threads nor touch the channel.
    """
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            attempt()
        os._exit(0)
    give_up = time.monotonic() + _PATIENCE
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > give_up:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(_POLL)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None
