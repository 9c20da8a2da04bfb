"""What an SSH connection runs over: a socket, a gateway's channel, the pipes of a ProxyCommand.

Imports paramiko: import lazily.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
import time

import paramiko

from orchestrator.transports.lines import Tail, shown


class _Heard:
    """What came before the line in which an ssh server names itself: it says why there is none."""

    _LIMIT = 2048

    def __init__(self) -> None:
        self._data = b""
        self._greeted = False

    def note(self, data: bytes) -> bytes:
        if not self._greeted and len(self._data) < self._LIMIT:
            before, greeting, _ = (b"\n" + self._data + data).partition(b"\nSSH-")
            self._data, self._greeted = before[1:], bool(greeting)
        return data

    def text(self) -> str:
        return shown(self._data[: self._LIMIT])


class Socket(socket.socket):
    """Gives up when the other side takes no byte for ``stall`` seconds.

    paramiko retries a write without limit while the socket is open, so that a stopped sshd
    with full buffers would hang the caller.
    """

    def __init__(self, plain: socket.socket, stall: float) -> None:
        super().__init__(fileno=plain.detach())
        self.heard = _Heard()
        self._stall = stall
        self._since: float | None = None

    def recv(self, limit: int, flags: int = 0) -> bytes:
        return self.heard.note(super().recv(limit, flags))

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]  # one buffer type is enough here
        try:
            sent = super().send(data, flags)
        except TimeoutError:
            self._since = self._since or time.monotonic()
            if time.monotonic() - self._since > self._stall:
                raise OSError(errno.ETIMEDOUT, "the other side takes no data") from None
            raise
        self._since = None
        return sent


class Tunnel:
    """A connection that a gateway opened for us, as paramiko takes a socket.

    Like `Socket` it gives up when no byte is taken for ``stall`` seconds.
    """

    def __init__(self, channel: paramiko.Channel, stall: float) -> None:
        self.heard = _Heard()
        self._channel, self._stall = channel, stall
        self._since: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        self._channel.settimeout(seconds)

    def recv(self, limit: int) -> bytes:
        return self.heard.note(self._channel.recv(limit))

    def send(self, data: bytes) -> int:
        try:
            sent = self._channel.send(data)
        except TimeoutError:
            self._since = self._since or time.monotonic()
            if time.monotonic() - self._since > self._stall:
                raise OSError(errno.ETIMEDOUT, "the gateway takes no data") from None
            raise
        self._since = None
        return sent

    def close(self) -> None:
        self._channel.close()

    @property
    def _closed(self) -> bool:
        """paramiko looks at this part of a socket while it waits for its thread to end."""
        return bool(self._channel.closed)


class Proxy:
    """The process of a ProxyCommand and what it says on stderr. OSError if it cannot be started.

    As OpenSSH does, the user's shell is put in place of itself by ``exec``.
    """

    def __init__(self, command: str, stream: socket.socket) -> None:
        shell = os.environ.get("SHELL") or "/bin/sh"
        line = command if command.startswith("exec ") else f"exec {command}"
        try:
            self._process = subprocess.Popen(
                [shell, "-c", line],
                stdin=stream.fileno(),
                stdout=stream.fileno(),
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise OSError(error.errno, f"{shell}: {error.strerror}") from error
        self._said = Tail()
        self._reading = threading.Thread(target=self._read, daemon=True, name="assay-proxy-stderr")
        self._reading.start()

    def _read(self) -> None:
        """Nothing may be left in the pipe: a proxy that talks would come to a stop."""
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            while data := os.read(stream.fileno(), 4096):
                self._said.feed(data)

    def text(self) -> str:
        """What it said; waits a moment for one that has just ended."""
        if self._process.poll() is not None:
            self._reading.join(1.0)
        return shown(self._said.text())

    def kill(self) -> None:
        """With whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        self._process.wait()
