"""A process on the other side of an SSH connection. Imports paramiko: import lazily."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import paramiko

from orchestrator.errors import InfraError
from orchestrator.transports import failures
from orchestrator.transports.channel import SLICE, RemoteChannel
from orchestrator.transports.command import Prelude
from orchestrator.transports.copying import CHUNK, Write
from orchestrator.transports.ssh_link import BROKEN, reason

NO_STATUS = 255
"""The status when a process ended without one, as the ``ssh`` program gives it."""


class RemoteProcess:
    """Streams of one exec'ed command, without what the login shell says before it on either."""

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
        self._err_prelude = Prelude(nonce, stderr=True)
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
                said = " / ".join(filter(None, (self._prelude.noise, self._err_prelude.noise)))
                said = said or "it printed nothing"
                raise self._no_shell(f"its login shell does not run commands: {said}")
            self._ready += data
        if self.pid is None:
            raise TimeoutError

    def _no_shell(self, what: str) -> InfraError:
        return InfraError(
            "E-REMOTE-SHELL",
            f"{self._device}: {what}",
            fix="the user needs a shell that runs sh, without a forced command",
            retryable=False,
        )

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
        return self._past(self._prelude, data)

    def drain_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            data = self._past(self._err_prelude, self._channel.recv_stderr(CHUNK))
            if data:
                self._on_stderr(data)

    def _past(self, prelude: Prelude, data: bytes) -> bytes:
        try:
            return prelude.feed(data)
        except ValueError as error:
            raise self._no_shell(f"{error}: {prelude.noise}") from error

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


class SshChannel(RemoteChannel):
    """A channel over one SSH session; a second session kills."""

    broken = BROKEN

    def why(self, error: BaseException) -> str:
        return reason(error)
