"""What Ray's processes and folders need of ours: they ignore a hang-up, and go when we are gone.

Ray keeps the folder of every session for ever, a killed coordinator's too. Those of ours carry a
file that names the process they belong to; a folder without one is somebody else's and stays.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from device_worker.scratch import gone, owner

MARK = "assay-owner"


@contextlib.contextmanager
def deaf_to_hangups() -> Iterator[None]:
    """Make processes started in here ignore SIGHUP.

    A terminal that is closed sends it to Ray as well, and this process drains its cells with Ray's
    help.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def settle(session: Path) -> int:
    """Mark ``session`` as this process's, and remove those beside it whose process is gone.

    Returns how many. Never raises: what cannot be removed only takes space.
    """
    with contextlib.suppress(OSError):
        (session / MARK).write_text(owner())
    removed = 0
    with contextlib.suppress(OSError):
        for mark in session.parent.glob(f"session_*/{MARK}"):
            if not mark.parent.is_symlink() and _left(mark):
                shutil.rmtree(mark.parent, ignore_errors=True)
                removed += 1
    return removed


def _left(mark: Path) -> bool:
    try:
        parts = mark.read_text().split("-")
        return len(parts) == 3 and gone(*parts)
    except (OSError, ValueError):
        return False
