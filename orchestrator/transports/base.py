"""What every transport can do. Small on purpose: run, start, push, pull, ping.

A non-zero exit status is *returned*; a broken link *raises* (InfraError). Every call has a
deadline in seconds and raises DeadlineError when it passes. Commands are argument lists: no
implementation may let a shell interpret any part of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Protocol, Self

from orchestrator.transports.settings import TransportSettings

MAX_LINE = 1 << 20
"""Longest line, in bytes, that a channel accepts from the other side before it gives up."""

MAX_FILE = 4 << 30
"""Bytes that ``pull`` takes at most unless told to take fewer."""


@dataclass(frozen=True)
class Completed:
    returncode: int
    stdout: bytes
    stderr: bytes


class Channel(Protocol):
    """A long-running remote process with line-wise streams."""

    def send(self, line: bytes) -> None:
        """Write ``line`` and a newline. Raises InfraError E-LINK when the link is down."""

    def read_line(self, timeout: float) -> bytes | None:
        """The next stdout line without its newline; None at end of stream.

        Raises DeadlineError E-SILENCE after ``timeout`` seconds without a full line, InfraError
        E-WORKER-GARBAGE for a line over MAX_LINE (without ever holding more than that).
        """

    def stderr_tail(self) -> str:
        """The last few kB of stderr, decoded with replacement."""

    def returncode(self) -> int | None:
        """Exit status, or None while running or when the link broke before it was known."""

    def close(self, timeout: float = 5.0) -> None:
        """Close stdin, wait up to ``timeout`` for a clean end, then kill. Never raises."""


class Transport(Protocol):
    @property
    def settings(self) -> TransportSettings:
        """What it was made with; once connected, with the place at which the device was found.

        A transport made with these finds the same device there again, or none.
        """

    @property
    def address(self) -> str:
        """How the device is reached, for people; once connected, what answered there."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run to the end. Raises InfraError E-LINK, DeadlineError E-DEADLINE (process killed)."""

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Channel:
        """Start a process and return its channel."""

    def push(self, local: Path, remote: PurePosixPath, *, timeout: float) -> None:
        """Copy a file to the device; parents are made, the last step is an atomic rename.

        Raises InfraError E-DISK-FULL, E-LINK, E-REMOTE-PERMISSION; nothing is left behind under
        the final name unless it is whole.
        """

    def pull(
        self, remote: PurePosixPath, local: Path, *, timeout: float, limit: int = MAX_FILE
    ) -> None:
        """Copy a plain file of at most ``limit`` bytes from the device (atomic rename locally).

        Raises InfraError E-REMOTE-MISSING, and E-TRANSFER for a link, a folder, a FIFO or any
        other thing that is no plain file, for more bytes than ``limit``, and for a file that
        changes its size meanwhile: never more than ``limit`` bytes are taken.
        """

    def ping(self, *, timeout: float) -> float:
        """Send a nonce through the device's own shell or process and wait for it to return.

        Returns the round trip in seconds. Connected sockets prove nothing; this does.
        """

    def root(self) -> PurePosixPath:
        """The folder on the device that Assay may use (absolute, created on demand)."""
