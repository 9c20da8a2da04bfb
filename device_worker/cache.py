"""Content-addressed files on the device: ``cache/<2>/<sha256>``, hashed before every use."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from typing import Dict, List, Set, Tuple

from device_worker.errors import WorkerError, storage
from device_worker.wire import Blob

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


def sha256_fd(fd: int) -> str:
    """Hex sha256 of the whole open file, read through ``fd`` without moving its offset."""
    digest, offset = hashlib.sha256(), 0
    while True:
        chunk = os.pread(fd, _CHUNK, offset)
        if not chunk:
            return digest.hexdigest()
        digest.update(chunk)
        offset += len(chunk)


def sha256_file(path: str) -> str:
    """Hex sha256 of the file at ``path``. Raises OSError."""
    with open(path, "rb") as file:
        return sha256_fd(file.fileno())


def open_plain(path: str) -> int:
    """A read-only descriptor of a plain file: no link is followed, no FIFO waited for.

    Raises OSError, ELOOP and ENXIO among them for what is none.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENXIO, "no plain file", path)
    return fd


def read_plain(path: str, size: int) -> bytes:
    """At most ``size`` bytes of a plain file. Raises as `open_plain`."""
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read(size)


class Cache:
    """Least recently used files go first when ``limit`` bytes would be exceeded.

    Files named since the last ``unpin`` are never evicted: the job about to run needs them.
    """

    def __init__(self, root: str, limit: int) -> None:
        self._root = os.path.realpath(root)
        self._limit = limit
        self._pinned: Set[str] = set()

    def path(self, sha256: str) -> str:
        """Where the file of that hash lives. Raises WorkerError E-WIRE for a malformed hash."""
        if not _SHA256.fullmatch(sha256):
            raise WorkerError("infra_error", "E-WIRE", "not a sha256: %r" % sha256[:80])
        return os.path.join(self._root, "cache", sha256[:2], sha256)

    def have(self, wanted: List[str]) -> List[str]:
        """Those of ``wanted`` that are here and whole; damaged files are deleted."""
        return [sha256 for sha256 in wanted if self._whole(sha256)]

    def adopt(self, sha256: str, pushed: str) -> None:
        """Move a pushed file into the cache under the hash its bytes have.

        Raises WorkerError E-CACHE-PATH (not under incoming/), E-CACHE-HASH (file deleted),
        E-CACHE-LIMIT (does not fit), E-DISK-FULL.
        """
        target = self.path(sha256)
        source = self._incoming(pushed)
        with storage("hashing a pushed file"):
            found, size = sha256_file(source), os.path.getsize(source)
        if found != sha256:
            os.unlink(source)
            raise WorkerError(
                "infra_error",
                "E-CACHE-HASH",
                "pushed file has sha256 %s, expected %s" % (found[:12], sha256[:12]),
                "send it again",
            )
        self._pinned.add(sha256)
        try:
            self._make_room(size)
            with storage("moving a file into the cache"):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.utime(source)
                os.replace(source, target)
        except WorkerError:
            with contextlib.suppress(OSError):
                os.unlink(source)
            raise

    def open(self, blob: Blob, code: str) -> int:
        """A read-only descriptor of a file whose bytes were hashed just now.

        Raises WorkerError E-CACHE-MISS, or ``code`` when its bytes are not those of ``blob``.
        """
        path = self.path(blob.sha256)
        try:
            fd = open_plain(path)
        except FileNotFoundError as error:
            raise WorkerError(
                "infra_error",
                "E-CACHE-MISS",
                "file %s is not in the device's cache" % blob.sha256[:12],
                "push it first",
            ) from error
        self._pinned.add(blob.sha256)
        with storage("hashing a cached file"):
            found, size = sha256_fd(fd), os.fstat(fd).st_size
        if (found, size) != (blob.sha256, blob.size):
            os.close(fd)
            os.unlink(path)
            raise WorkerError(
                "infra_error",
                code,
                "cached file %s has %d bytes with sha256 %s, expected %d bytes"
                % (blob.sha256[:12], size, found[:12], blob.size),
                "send it again",
            )
        os.utime(path)
        return fd

    def unpin(self) -> None:
        """Forget which files are needed: the job is over."""
        self._pinned.clear()

    def _whole(self, sha256: str) -> bool:
        path = self.path(sha256)
        with storage("hashing a cached file"):
            try:
                whole = sha256_file(path) == sha256
            except FileNotFoundError:
                return False
            if not whole:
                os.unlink(path)
                return False
            os.utime(path)
        self._pinned.add(sha256)
        return True

    def _incoming(self, pushed: str) -> str:
        folder = os.path.join(self._root, "incoming")
        real = os.path.realpath(pushed)
        if os.path.commonpath([folder, real]) != folder or not os.path.isfile(real):
            raise WorkerError(
                "infra_error", "E-CACHE-PATH", "%r is no file under incoming/" % pushed[:200]
            )
        return real

    def _entries(self) -> Dict[str, Tuple[int, int, str]]:
        found = {}
        for folder, _, names in os.walk(os.path.join(self._root, "cache")):
            for name in names:
                path = os.path.join(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path)
                    found[name] = (status.st_mtime_ns, status.st_size, path)
        return found

    def _make_room(self, size: int) -> None:
        entries = self._entries()
        used = size + sum(entry[1] for entry in entries.values())
        idle = sorted(entry for name, entry in entries.items() if name not in self._pinned)
        for _, freed, path in idle:
            if used <= self._limit:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            used -= freed
        if used > self._limit:
            raise WorkerError(
                "infra_error",
                "E-CACHE-LIMIT",
                "the job needs %d bytes of cache, the limit is %d" % (used, self._limit),
                "raise cache_limit of the device in its inventory",
            )
