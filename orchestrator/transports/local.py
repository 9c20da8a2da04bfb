"""This machine as a device: processes in sessions of their own, files copied."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from orchestrator.transports import command, copying, failures
from orchestrator.transports.base import MAX_FILE, Channel, Completed
from orchestrator.transports.lines import LineBuffer, LineTooLongError, Tail
from orchestrator.transports.settings import LocalSettings

SEND_STALL = 20.0
"""Seconds that a process may leave its full stdin unread before the link counts as down."""

_CHUNK = 65536

_KEPT_ENV = {"HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"}


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """What a login over ssh would have: the coordinator's own settings must not leak in."""
    kept = {k: v for k, v in os.environ.items() if k in _KEPT_ENV or k.startswith("LC_")}
    return kept | dict(extra or {})


def _status(returncode: int) -> int:
    """Death by a signal as 128 + signal, as every shell and so every other transport says."""
    return returncode if returncode >= 0 else 128 - returncode


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The leader is not reaped yet, so its pid cannot belong to someone else.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


class LocalChannel:
    """A running process. One thread reads; any thread may send."""

    def __init__(self, process: subprocess.Popen[bytes], device: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._device = process, device
        self._in, self._out, self._err = process.stdin, process.stdout, process.stderr
        for stream in (self._in, self._out, self._err):
            os.set_blocking(stream.fileno(), False)
        self._lines, self._tail = LineBuffer(), Tail()
        self._ended = self._err_ended = False

    def send(self, line: bytes) -> None:
        data = memoryview(line + b"\n")
        give_up = time.monotonic() + SEND_STALL
        while data:
            try:
                written = os.write(self._in.fileno(), data)
            except BlockingIOError:
                # A process stuck on its own full stderr would never come to read.
                self._wait({self._in.fileno(): select.POLLOUT}, 0.05)
                self._drain_stderr()
                if time.monotonic() > give_up:
                    raise failures.not_reading(self._device, SEND_STALL) from None
            except (OSError, ValueError) as error:
                raise failures.link_down(self._device, f"the process has ended ({error})") from None
            else:
                data = data[written:]
                give_up = time.monotonic() + SEND_STALL

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
            self._wait({self._out.fileno(): select.POLLIN}, left)
            self._drain_stderr()
            self._read_stdout()

    def _read_stdout(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._out.fileno(), min(_CHUNK, self._lines.room()))
            self._lines.feed(data)
            self._ended = not data

    def _drain_stderr(self) -> None:
        with contextlib.suppress(BlockingIOError, ValueError):
            while data := os.read(self._err.fileno(), _CHUNK):
                self._tail.feed(data)
            self._err_ended = True

    def _wait(self, events: dict[int, int], seconds: float) -> None:
        """Until one of ``events`` or stderr is ready, at most ``seconds``."""
        poll = select.poll()
        for fd, mask in events.items():
            poll.register(fd, mask)
        # A stream at its end is always ready: polling it would spin.
        if not self._err_ended:
            poll.register(self._err.fileno(), select.POLLIN)
        poll.poll(seconds * 1000)

    def stderr_tail(self) -> str:
        if not self._err.closed:
            self._drain_stderr()
        return self._tail.text()

    def returncode(self) -> int | None:
        status = self._process.poll()
        return None if status is None else _status(status)

    def close(self, timeout: float = 5.0) -> None:
        if self._err.closed:
            return
        with contextlib.suppress(OSError):
            self._in.close()
        end = time.monotonic() + timeout
        # Reading on: a process that still writes must not be stuck on a full pipe.
        while self._process.poll() is None and time.monotonic() < end:
            self._drain_stderr()
            with contextlib.suppress(BlockingIOError):
                while os.read(self._out.fileno(), _CHUNK):
                    pass
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(min(0.02, max(0.0, end - time.monotonic())))
        if self._process.returncode is None:
            _kill_group(self._process)
            self._process.wait()
        self._drain_stderr()
        self._out.close()
        self._err.close()


class LocalTransport:
    """``root`` is made when first asked for; relative remote paths are relative to it."""

    def __init__(self, settings: LocalSettings, *, device: str) -> None:
        self.settings = settings
        self._root = Path(settings.root).expanduser().absolute()
        self._device = device
        self._channels: weakref.WeakSet[LocalChannel] = weakref.WeakSet()

    @property
    def address(self) -> str:
        return f"local {self.settings.root}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for channel in list(self._channels):
            channel.close(copying.LEAVE)

    def root(self) -> PurePosixPath:
        with copying.raising(self._at(self._root)):
            self._root.mkdir(parents=True, exist_ok=True)
        return PurePosixPath(self._root)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        process = self._spawn(argv, env)
        if isinstance(process, Completed):
            return process
        with process:
            try:
                out, err = process.communicate(stdin, timeout)
            except subprocess.TimeoutExpired:
                raise failures.deadline(self._device, argv[0], timeout) from None
            finally:
                # Also on Ctrl-C. Closed here, so that a process which escaped the group and
                # holds the pipes open cannot block us.
                if process.returncode is None:
                    _kill_group(process)
                    for stream in (process.stdin, process.stdout, process.stderr):
                        if stream is not None:
                            with contextlib.suppress(OSError):
                                stream.close()
        return Completed(_status(process.returncode), out, err)

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Channel:
        process = self._spawn(argv, env)
        if isinstance(process, Completed):
            # As over ssh: what cannot be started is a process that ended at once.
            process = self._popen(
                ["sh", "-c", 'printf %s "$1" >&2; exit "$2"', "sh",
                 process.stderr.decode(), str(process.returncode)],
                None,
            )  # fmt: skip
        channel = LocalChannel(process, self._device)
        self._channels.add(channel)
        return channel

    def _spawn(
        self, argv: Sequence[str], env: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes] | Completed:
        """The process, or how a shell would say that there is no such program."""
        command.check(argv, env)
        self.root()
        try:
            return self._popen(argv, env)
        except (FileNotFoundError, NotADirectoryError):
            return Completed(127, b"", f"{argv[0]}: not found\n".encode())
        except PermissionError:
            return Completed(126, b"", f"{argv[0]}: permission denied\n".encode())
        except OSError as error:
            return Completed(126, b"", f"{argv[0]}: {error.strerror}\n".encode())

    def _popen(self, argv: Sequence[str], env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(env),
            cwd=self._root,
            start_new_session=True,
            bufsize=0,
        )

    def push(self, local: Path, remote: PurePosixPath, *, timeout: float) -> None:
        target = self._root / remote
        ours, theirs = copying.our_file(local), self._at(target)
        with copying.opened(local, ours) as source:
            with copying.raising(theirs):
                target.parent.mkdir(parents=True, exist_ok=True)
            with copying.replacing(target, theirs) as write:
                self._copy(copying.chunks(source, ours), write, f"push of {local}", timeout)

    def pull(
        self, remote: PurePosixPath, local: Path, *, timeout: float, limit: int = MAX_FILE
    ) -> None:
        origin = self._root / remote
        ours, theirs = copying.our_file(local), self._at(origin)
        with (
            copying.opened_plain(origin, limit, self._device, theirs) as source,
            copying.replacing(local, ours) as write,
        ):
            sized = copying.Sized(write, limit, self._device, origin)
            sized.feed(b"%d\n" % os.fstat(source.fileno()).st_size)
            self._copy(copying.chunks(source, theirs), sized.feed, f"pull of {origin}", timeout)
            sized.end()

    def _copy(
        self, chunks: copying.Chunks, write: copying.Write, what: str, timeout: float
    ) -> None:
        end = time.monotonic() + timeout
        for chunk in chunks:
            if time.monotonic() > end:
                raise failures.deadline(self._device, what, timeout)
            write(chunk)

    def ping(self, *, timeout: float) -> float:
        return copying.ping(self, self._device, timeout)

    def _at(self, path: Path) -> copying.Wrong:
        """The device's copy is at fault."""
        return lambda error: failures.from_reason(self._device, path, os.strerror(error.errno or 0))
