"""One ``adb shell``: a client process here, a command on the device."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

from orchestrator.errors import InfraError
from orchestrator.transports.adb_command import Trailer
from orchestrator.transports.adb_server import environment, not_started
from orchestrator.transports.channel import SLICE, RemoteChannel
from orchestrator.transports.command import Prelude
from orchestrator.transports.copying import CHUNK, Write
from orchestrator.transports.lines import Tail

ENDING = 2.0
"""Seconds a client has to end after it closed its stdout."""

_PIPE = 1 << 20
_SIGNALLED = range(129, 255)
"""What adbd says of a wrapper that was killed by a signal; 255 and 0 also mean a cut link."""

Trouble = Callable[[], InfraError | None]
"""Asks whether the device is known to be gone, which ends every call."""


class AdbProcess:
    """Implements ``channel.Process``. One thread reads; any thread may write.

    ``trouble`` is asked while waiting, ``why`` turns a client's last words into the error for a
    command that ended without a status.
    """

    def __init__(
        self, argv: Sequence[str], nonce: str, device: str, on_stderr: Write, trouble: Trouble,
        why: Callable[[str], InfraError],
    ) -> None:  # fmt: skip
        self._device, self._on_stderr = device, on_stderr
        self._trouble, self._why = trouble, why
        self._client = _spawned(argv)
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        assert self._client.stderr is not None
        self._in: IO[bytes] = self._client.stdin
        self._out: IO[bytes] = self._client.stdout
        self._err: IO[bytes] = self._client.stderr
        for stream in (self._in, self._out, self._err):
            os.set_blocking(stream.fileno(), False)
            with contextlib.suppress(OSError):  # above the user's share of pipe memory
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
        self._prelude, self._trailer = Prelude(nonce), Trailer(nonce)
        self._ready = b""
        self._last_words = Tail()
        self._err_ended = False
        self._err_lock = threading.RLock()

    @property
    def pid(self) -> int | None:
        """Of the process group on the device, once its prelude has come."""
        return self._prelude.pid

    def await_start(self, end: float) -> None:
        """Until the prelude has come. TimeoutError at ``end`` (monotonic); InfraError."""
        while self.pid is None and time.monotonic() < end:
            data = self.read(CHUNK, SLICE)
            if data is None:
                self.at_end()
                said = self._prelude.noise or self._last_words.text().strip() or "nothing"
                raise self._no_shell(f"does not run commands: {said}")
            self._ready += data
        if self.pid is None:
            raise TimeoutError

    def _no_shell(self, what: str) -> InfraError:
        return InfraError(
            "E-REMOTE-SHELL",
            f"{self._device}: its shell {what}",
            fix="adb's shell must be a POSIX shell",
            retryable=False,
        )

    def read(self, limit: int, seconds: float) -> bytes | None:
        self.drain_stderr()
        if self._ready:
            data, self._ready = self._ready[:limit], self._ready[limit:]
            return data
        self._wait({self._out.fileno(): select.POLLIN}, seconds)
        self.drain_stderr()
        try:
            data = os.read(self._out.fileno(), limit)
        except BlockingIOError:
            self.check_link()
            return b""
        if not data:
            return None
        try:
            return self._prelude.feed(data)
        except ValueError as error:
            raise self._no_shell(str(error)) from error

    def write(self, data: bytes | memoryview, seconds: float) -> int:
        for last_try in (False, True):
            with contextlib.suppress(BlockingIOError):
                return os.write(self._in.fileno(), data[:CHUNK])
            if not last_try:
                self._wait({self._in.fileno(): select.POLLOUT}, seconds)
        return 0

    def _wait(self, events: dict[int, int], seconds: float) -> None:
        """Until one of ``events`` or stderr is ready, at most ``seconds``."""
        poll = select.poll()
        for fd, mask in events.items():
            poll.register(fd, mask)
        # A stream at its end is always ready: polling it would spin.
        if not self._err_ended:
            poll.register(self._err.fileno(), select.POLLIN)
        poll.poll(seconds * 1000)

    def drain_stderr(self) -> None:
        with self._err_lock:
            if self._err.closed:
                return
            with contextlib.suppress(BlockingIOError):
                while data := os.read(self._err.fileno(), CHUNK):
                    self._pass_on(self._trailer.feed(data))
                self._pass_on(self._trailer.rest())
                self._err_ended = True

    def _pass_on(self, data: bytes) -> None:
        self._last_words.feed(data)
        self._on_stderr(data)

    def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self._in.close()

    def close(self) -> None:
        """End the client, whatever it does. What runs on the device is not ended by this."""
        self.close_stdin()
        if self._client.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._client.pid, signal.SIGKILL)
        self._client.wait()
        self.drain_stderr()
        with self._err_lock:
            self._err.close()
        self._out.close()

    def status(self, seconds: float) -> int | None:
        end = time.monotonic() + seconds
        while (status := self.peek_status()) is None and time.monotonic() < end:
            if self._client.poll() is not None and self._err_ended:
                return None
            self._wait({}, min(SLICE, max(0.0, end - time.monotonic())))
        return status

    def peek_status(self) -> int | None:
        self.drain_stderr()
        if self._trailer.status is not None:
            return self._trailer.status
        ended = self._client.poll()
        # Nobody but the wrapper prints a trailer: without one, somebody killed the wrapper too.
        return ended if ended in _SIGNALLED and self._err_ended else None

    def ended(self) -> bool:
        """Whether the process is known to have ended."""
        return self.peek_status() is not None

    def check_link(self) -> None:
        trouble = self._trouble()
        if trouble is not None:
            raise trouble

    def at_end(self) -> None:
        if self.status(ENDING) is None:
            raise self._why(self._last_words.text().strip().rpartition("\n")[2])


def _spawned(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            # Ctrl-C at the terminal is ours to handle; the client must outlive it.
            start_new_session=True,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        raise not_started(argv[0], error) from error


class AdbChannel(RemoteChannel):
    """A channel over one ``adb shell``; a second one kills."""

    broken = (OSError, ValueError)
    """ValueError: its pipes were closed by another thread."""

    def close(self, timeout: float = 5.0) -> None:
        super().close(timeout)
        # Also after a link that broke: a client whose device is silent would wait for ever.
        self._process.close()

    def why(self, error: BaseException) -> str:
        if isinstance(error, OSError) and error.strerror:
            return f"the process has ended ({error.strerror})"
        return "the channel is closed"
