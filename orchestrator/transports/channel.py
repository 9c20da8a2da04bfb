"""A process at the other end of a link, as the callers of every remote transport see it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar, Protocol

from orchestrator.errors import InfraError
from orchestrator.transports import failures
from orchestrator.transports.copying import CHUNK, Chunks, Write
from orchestrator.transports.lines import LineBuffer, LineTooLongError, Tail

SLICE = 0.1
"""Seconds between two looks at stderr, at the deadline and at whether the caller gave up.

Both streams share the link's flow control, so stderr must be read even when nobody asks.
"""

KILLED = 137
"""128 + SIGKILL: what we did to it."""


class Process(Protocol):
    """Streams of one command on the device, without the prelude that names its process group."""

    @property
    def pid(self) -> int | None: ...

    def read(self, limit: int, seconds: float) -> bytes | None:
        """Up to ``limit`` bytes of stdout; empty if none came within ``seconds``; None at end."""

    def write(self, data: bytes | memoryview, seconds: float) -> int:
        """Bytes taken, 0 if the other side has no room for ``seconds``. OSError when it ended."""

    def drain_stderr(self) -> None: ...

    def close_stdin(self) -> None: ...

    def close(self) -> None: ...

    def status(self, seconds: float) -> int | None:
        """Exit status, waiting for it; None if it is not known (yet). InfraError E-LINK."""

    def peek_status(self) -> int | None:
        """The status if it has arrived; never waits, never raises."""

    def check_link(self) -> None:
        """InfraError E-LINK when the connection is known to be down."""

    def at_end(self) -> None:
        """After ``read`` gave None: returns if the process ended it, E-LINK if the link did."""


def communicate(
    process: Process, source: Chunks, sink: Write, end: float, cancelled: Callable[[], bool]
) -> int:
    """Feed ``source``, give stdout to ``sink``, until both streams end; the exit status.

    TimeoutError at ``end`` (monotonic) or when ``cancelled``; InfraError E-LINK.
    """
    pending = memoryview(next(source, b""))
    sending = True
    while True:
        if sending and not pending:
            process.close_stdin()
            sending = False
        data = process.read(CHUNK, 0.0 if sending else SLICE)
        if data is None:
            break
        if data:
            sink(data)
        if sending:
            try:
                pending = pending[process.write(pending, SLICE / 2) :]
            except OSError:
                sending = False  # it ended without wanting the rest; its status says why
            else:
                pending = pending or memoryview(next(source, b""))
        if time.monotonic() > end or cancelled():
            raise TimeoutError
    process.at_end()
    status = process.status(max(0.0, end - time.monotonic()))
    if status is None:
        raise TimeoutError
    return status


class RemoteChannel:
    """``kill`` ends a process group on the device over a second connection or session."""

    broken: ClassVar[tuple[type[BaseException], ...]] = (OSError,)
    """What the process's streams raise when the link fails."""

    def __init__(
        self, process: Process, tail: Tail, device: str, kill: Callable[[int], bool],
        stall: float,
    ) -> None:  # fmt: skip
        self._process, self._tail, self._device, self._kill = process, tail, device, kill
        self._stall = stall
        self._lines = LineBuffer()
        self._ended = self._closed = self._killed = False
        self._sending = threading.Lock()

    def why(self, error: BaseException) -> str:
        """What a ``broken`` says, for the message."""
        return str(error)

    def send(self, line: bytes) -> None:
        data = memoryview(line + b"\n")
        give_up = time.monotonic() + self._stall
        with self._sending:
            while data:
                try:
                    sent = self._process.write(data, SLICE)
                    self._process.drain_stderr()
                    self._process.check_link()
                except self.broken as error:
                    raise failures.link_down(self._device, self.why(error)) from error
                if sent:
                    data = data[sent:]
                    give_up = time.monotonic() + self._stall
                elif time.monotonic() > give_up:
                    raise failures.not_reading(self._device, self._stall)

    def read_line(self, timeout: float) -> bytes | None:
        end = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.take()
            except LineTooLongError:
                raise failures.line_too_long(self._device) from None
            if line is not None:
                return line
            if self._ended:
                return self._lines.rest()
            left = end - time.monotonic()
            if left <= 0:
                raise failures.silence(self._device, timeout)
            try:
                data = self._process.read(min(CHUNK, self._lines.room()), min(left, SLICE))
            except self.broken as error:
                raise failures.link_down(self._device, self.why(error)) from error
            if data is None:
                self._process.at_end()
                self._ended = True
            else:
                self._lines.feed(data)

    def stderr_tail(self) -> str:
        if not self._closed:
            self._process.drain_stderr()
        return self._tail.text()

    def returncode(self) -> int | None:
        status = self._process.peek_status()
        return KILLED if status is None and self._killed else status

    def close(self, timeout: float = 5.0) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if not self._ends_within(timeout) and self._process.pid is not None:
                self._killed = self._kill(self._process.pid)
            self._process.drain_stderr()
            self._process.close()
        except InfraError:
            return  # the link is down; the worker's own watchdog ends it
        except self.broken:
            return

    def _ends_within(self, seconds: float) -> bool:
        self._process.close_stdin()
        end = time.monotonic() + seconds
        while self._process.peek_status() is None and time.monotonic() < end:
            # Reading on: a process that still writes must not be stuck on a full window.
            if self._process.read(CHUNK, SLICE / 4) is None:
                self._process.at_end()
                return self._process.status(max(0.0, end - time.monotonic())) is not None
        return self._process.peek_status() is not None
