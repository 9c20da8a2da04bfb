"""A process on the other side of an SSH connection. Imports paramiko: import lazily."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import paramiko

from orchestrator.errors import InfraError
from orchestrator.transports import failures
from orchestrator.transports.command import Prelude
from orchestrator.transports.copying import CHUNK, Chunks, Write
from orchestrator.transports.lines import LineBuffer, LineTooLongError, Tail
from orchestrator.transports.ssh_link import BROKEN, reason

SLICE = 0.1
"""Seconds between two looks at stderr, at the deadline and at whether the caller gave up.

The two streams share one flow-control window, so stderr must be read even when nobody asks.
"""

NO_STATUS = 255
"""The status when a process ended without one, as the ``ssh`` program gives it."""

KILLED = 137
"""128 + SIGKILL: what we did to it."""


class RemoteProcess:
    """Streams of one exec'ed command, without the prelude that names its process group."""

    def __init__(
        self,
        transport: paramiko.Transport,
        channel: paramiko.Channel,
        nonce: str,
        device: str,
        on_stderr: Write,
    ) -> None:
        self._transport, self._channel = transport, channel
        self._device, self._on_stderr = device, on_stderr
        self._prelude = Prelude(nonce)
        self._ready = b""

    @property
    def pid(self) -> int | None:
        return self._prelude.pid

    def await_start(self, end: float, cancelled: Callable[[], bool]) -> None:
        """Until the prelude has come. TimeoutError at ``end`` (monotonic); InfraError."""
        while self.pid is None and time.monotonic() < end and not cancelled():
            data = self.read(CHUNK, SLICE)
            if data is None:
                self._raise_if_link_down()
                said = self._prelude.noise or "it printed nothing"
                raise InfraError(
                    "E-REMOTE-SHELL",
                    f"{self._device}: its login shell does not run commands: {said}",
                    mend="the user needs a POSIX shell, without a forced command",
                    retryable=False,
                )
            self._ready += data
        if self.pid is None:
            raise TimeoutError

    def read(self, limit: int, seconds: float) -> bytes | None:
        """Up to ``limit`` bytes of stdout; empty if none came within ``seconds``; None at end."""
        self.drain_stderr()
        if self._ready:
            data, self._ready = self._ready[:limit], self._ready[limit:]
            return data
        self._channel.settimeout(seconds)
        try:
            data = self._channel.recv(limit)
        except TimeoutError:
            return b""
        if not data:
            self.drain_stderr()
            return None
        try:
            return self._prelude.feed(data)
        except ValueError as error:
            raise InfraError("E-REMOTE-SHELL", f"{self._device}: {error}") from error

    def drain_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            self._on_stderr(self._channel.recv_stderr(CHUNK))

    def write(self, data: bytes | memoryview, seconds: float) -> int:
        """Bytes taken, 0 if the other side has no room for ``seconds``. OSError when it ended."""
        self._channel.settimeout(seconds)
        try:
            return self._channel.send(bytes(data[:CHUNK]))
        except TimeoutError:
            return 0

    def close_stdin(self) -> None:
        self._channel.shutdown_write()

    def close(self) -> None:
        with contextlib.suppress(*BROKEN):
            self._channel.close()

    def status(self, seconds: float) -> int | None:
        """Exit status, waiting for it; None if it is not known (yet). InfraError E-LINK."""
        if not self._channel.status_event.wait(seconds):
            return None
        if self._channel.exit_status >= 0:
            return self._channel.exit_status
        self._raise_if_link_down()
        return NO_STATUS

    def peek_status(self) -> int | None:
        """The status if it has arrived; never waits, never raises."""
        status = self._channel.exit_status
        return status if self._channel.status_event.is_set() and status >= 0 else None

    def ended(self) -> bool:
        """Whether the process is known to have ended."""
        return self.peek_status() is not None

    def check_link(self) -> None:
        """InfraError E-LINK when the connection is down: paramiko drops writes silently then."""
        if not self._transport.is_active():
            self._raise_if_link_down()

    def _raise_if_link_down(self) -> None:
        if not self._channel.eof_received:
            # A dying connection closes its channels a moment before it calls itself inactive.
            self._transport.join(0.5)
        if not self._transport.is_active():
            raise failures.link_down(
                self._device, reason(self._transport.get_exception() or EOFError())
            )

    def at_end(self) -> None:
        """After ``read`` gave None: returns if the process ended it, E-LINK if the link did."""
        if self.peek_status() is None:
            self._raise_if_link_down()

    def communicate(
        self, source: Chunks, sink: Write, end: float, cancelled: Callable[[], bool]
    ) -> int:
        """Feed ``source``, give stdout to ``sink``, until both streams end; the exit status.

        TimeoutError at ``end`` (monotonic) or when ``cancelled``; InfraError E-LINK.
        """
        pending = memoryview(next(source, b""))
        sending = True
        while True:
            if sending and not pending:
                self.close_stdin()
                sending = False
            data = self.read(CHUNK, 0.0 if sending else SLICE)
            if data is None:
                break
            if data:
                sink(data)
            if sending:
                try:
                    pending = pending[self.write(pending, SLICE / 2) :]
                except OSError:
                    sending = False  # it ended without wanting the rest; its status says why
                else:
                    pending = pending or memoryview(next(source, b""))
            if time.monotonic() > end or cancelled():
                raise TimeoutError
        self.at_end()
        status = self.status(max(0.0, end - time.monotonic()))
        if status is None:
            raise TimeoutError
        return status


class SshChannel:
    """``kill`` ends a process group on the device by a second session."""

    def __init__(
        self, process: RemoteProcess, tail: Tail, device: str, kill: Callable[[int], bool],
        stall: float,
    ) -> None:  # fmt: skip
        self._process, self._tail, self._device, self._kill = process, tail, device, kill
        self._stall = stall
        self._lines = LineBuffer()
        self._ended = self._closed = self._killed = False
        self._sending = threading.Lock()

    def send(self, line: bytes) -> None:
        data = memoryview(line + b"\n")
        give_up = time.monotonic() + self._stall
        with self._sending:
            while data:
                try:
                    sent = self._process.write(data, SLICE)
                    self._process.drain_stderr()
                    self._process.check_link()
                except BROKEN as error:
                    raise failures.link_down(self._device, reason(error)) from error
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
            except BROKEN as error:
                raise failures.link_down(self._device, reason(error)) from error
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
        except (*BROKEN, InfraError):
            # The link is down; the worker's own watchdog ends it.
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
