"""Trying something that may crash in a forked child first, so that a crash gets a name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from typing import Callable, Optional

HANG = "hang"
_PATIENCE = 120.0
_POLL = 0.002
_BURIAL = 5.0
_PR_SET_PDEATHSIG = 1


def crash_signal(attempt: Callable[[], None]) -> Optional[str]:
    """Name of the signal that ends ``attempt`` in a child process, None if it is survived.

    A child that hangs is killed and counts as survived too: the caller is about to see it itself.
    """
    end = trial(attempt, _PATIENCE)
    return None if end == HANG else end


def trial(attempt: Callable[[], None], patience: float) -> Optional[str]:
    """How ``attempt`` ends in a child process: a signal's name, HANG, or None if it is survived.

    Whatever it raises counts as survived: the caller is about to see it for itself. HANG: killed
    after ``patience`` seconds. ``attempt`` runs in a fork of this process, so it must neither need
    other threads nor touch the channel.
    """
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _die_with_parent()
            attempt()
        os._exit(0)
    status = _wait(child, patience)
    if status is None:
        os.kill(child, signal.SIGKILL)
        # One that is stuck in a driver does not die either; it must not take this process along.
        _wait(child, _BURIAL)
        return HANG
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else None


def _die_with_parent() -> None:
    """A worker that is killed while its child hangs must not leave it behind for ever."""
    with contextlib.suppress(OSError, AttributeError):  # no such call here: then it may
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _wait(child: int, patience: float) -> Optional[int]:
    """The child's wait status, None when it still lives after ``patience`` seconds."""
    give_up = time.monotonic() + patience
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > give_up:
            return None
        time.sleep(_POLL)
