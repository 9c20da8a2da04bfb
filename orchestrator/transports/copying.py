"""What all transports share about files on this side, and the nonce of ``ping``."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

from orchestrator.errors import AssayError
from orchestrator.transports import command, failures
from orchestrator.transports.base import Transport

CHUNK = 256 * 1024

LEAVE = 1.0
"""Seconds that a process still running has to end when its transport is left."""

Chunks: TypeAlias = Iterator[bytes]
Write: TypeAlias = Callable[[bytes], object]
Wrong: TypeAlias = Callable[[OSError], AssayError]


@contextlib.contextmanager
def raising(wrong: Wrong) -> Iterator[None]:
    """OSError in the block becomes ``wrong(error)``."""
    try:
        yield
    except OSError as error:
        raise wrong(error) from error


def our_file(path: Path) -> Wrong:
    """InputError E-LOCAL-FILE: the copy on this side is at fault."""
    return lambda error: failures.local_file(path, error)


@contextlib.contextmanager
def opened(path: Path, wrong: Wrong) -> Iterator[IO[bytes]]:
    with raising(wrong):
        source = path.open("rb")
    with source:
        yield source


def chunks(source: IO[bytes], wrong: Wrong) -> Chunks:
    """The rest of an open file."""
    while True:
        with raising(wrong):
            data = source.read(CHUNK)
        if not data:
            return
        yield data


@contextlib.contextmanager
def replacing(path: Path, wrong: Wrong, mode: int = 0o666) -> Iterator[Write]:
    """Write beside ``path``; it takes that name only if the block ends well."""
    part = path.with_name(part_name())
    with raising(wrong):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        sink = os.fdopen(fd, "wb", buffering=0)

    def write(data: bytes) -> None:
        rest = memoryview(data)
        with raising(wrong):
            while rest:
                rest = rest[sink.write(rest) or 0 :]

    try:
        with sink:
            yield write
        with raising(wrong):
            part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


@contextlib.contextmanager
def opened_plain(path: Path, limit: int, device: str, wrong: Wrong) -> Iterator[IO[bytes]]:
    """A plain file of the device's, opened without following a link or waiting for a FIFO.

    Raises InfraError E-TRANSFER: it is no plain file, or has more than ``limit`` bytes.
    """
    with raising(wrong):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                raise failures.no_plain_file(device, path) from None
            raise
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        os.close(fd)
        raise failures.no_plain_file(device, path)
    with os.fdopen(fd, "rb") as source:
        if state.st_size > limit:
            raise failures.too_large(device, path, limit)
        yield source


_LENGTH = 64
"""Bytes in which a length must have been said."""


class Sized:
    """Passes on a stream that begins with its length in decimal and a newline.

    Never more than that length, nor than ``limit`` bytes: InfraError E-TRANSFER, also where
    something else stands for the length.
    """

    def __init__(self, write: Write, limit: int, device: str, path: object) -> None:
        self._write, self._limit, self._head = write, limit, b""
        self._device, self._path = device, path
        self._left: int | None = None

    def feed(self, data: bytes) -> None:
        if self._left is None:
            size, newline, data = (self._head + data).partition(b"\n")
            if not newline and len(size) < _LENGTH:
                self._head = size
                return
            self._left = self._length(size)
        self._left -= len(data)
        if self._left < 0:
            raise failures.size_changed(self._device, self._path)
        self._write(data)

    def end(self) -> None:
        """Raises InfraError E-TRANSFER unless all of it has come."""
        if self._left != 0:
            raise failures.size_changed(self._device, self._path)

    def _length(self, text: bytes) -> int:
        digits = text.strip()
        if not (digits.isdigit() and len(digits) < 20):
            raise failures.transfer(self._device, self._path, f"its size is {text[:40]!r}")
        if int(digits) > self._limit:
            raise failures.too_large(self._device, self._path, self._limit)
        return int(digits)


def part_name() -> str:
    """Short and without the final name, which may already have the longest length allowed."""
    return f".{secrets.token_hex(8)}.part"


def ping(transport: Transport, device: str, timeout: float) -> float:
    """Round trip in seconds of a nonce through a process on the device; E-LINK if it is lost."""
    nonce = secrets.token_hex(16)
    start = time.monotonic()
    done = transport.run(["printf", "%s", nonce], timeout=timeout)
    if done.returncode != 0 or done.stdout != nonce.encode():
        raise failures.link_down(device, "a ping came back with other bytes than it went out")
    return time.monotonic() - start


def made_root(transport: Transport, device: str, wanted: str, timeout: float) -> PurePosixPath:
    """The device's folder ``wanted``, made if need be, absolute. InfraError as ``from_reason``."""
    argv = command.script(command.ROOT, wanted)
    done = transport.run(argv, timeout=timeout, env=command.PLAIN)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace")
        raise failures.from_reason(device, wanted, said)
    return PurePosixPath(os.fsdecode(done.stdout.removesuffix(b"\n")))
