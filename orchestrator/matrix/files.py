"""What a path is that a user named, told before it is opened: opening a FIFO waits for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

MAX_MODEL = 2 << 30
"""Bytes: neither a FlatBuffer nor a protobuf holds more in one file."""
MAX_INPUT = 64 << 30
"""Bytes of one input file: it is read from end to end for its sha256."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def unusable(path: Path, most: int | None = None) -> str | None:
    """Why ``path`` is no regular file of at most ``most`` bytes, None where it is one.

    What is not there, or may not be looked at, is for whoever opens it to say: None, too.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    kind = stat.S_IFMT(found.st_mode)
    if kind != stat.S_IFREG:
        return f"{_KINDS.get(kind, 'something else')}, not a file"
    if most is not None and found.st_size > most:
        return f"{found.st_size} bytes, more than {most} are not read"
    return None


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened for reading without waiting for anybody. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = stat.S_IFMT(os.fstat(handle).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(0, f"{_KINDS.get(kind, 'something else')}, not a file")
    except BaseException:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")
