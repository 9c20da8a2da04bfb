"""The line channel to the coordinator: one writer lock, stray output kept away from it."""

from __future__ import annotations

import os
import select
import threading
from typing import Any, Dict, Iterator, Tuple

from device_worker import plain


class SilenceError(Exception):
    """Nothing arrived for the agreed time."""


class LineTooLongError(Exception):
    """A line is longer than the protocol allows."""


def take_stdio() -> Tuple[int, int]:
    """Keep private copies of fds 0 and 1 for the protocol; returns (read, write).

    Afterwards fd 1 is stderr and fd 0 is empty, so that prints of C libraries cannot corrupt the
    channel and nothing else can eat requests.
    """
    read, write = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return read, write


class Writer:
    """Whole messages only, from any thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, message: Dict[str, Any]) -> None:
        """Raises OSError when the coordinator is gone."""
        data = memoryview(plain.encode(message) + b"\n")
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]


def lines(fd: int, silence: float) -> Iterator[bytes]:
    """Lines read from ``fd`` until its end.

    Raises SilenceError after ``silence`` seconds without a byte, LineTooLongError past
    plain.MAX_LINE bytes.
    """
    pending = b""
    while True:
        if not select.select([fd], [], [], silence)[0]:
            raise SilenceError
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            return
        *whole, pending = (pending + chunk).split(b"\n")
        if len(pending) > plain.MAX_LINE:
            raise LineTooLongError
        yield from whole
