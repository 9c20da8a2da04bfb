"""A device with scripted faults: its processes and files are real, its failures are ordered."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self, assert_never

from orchestrator.transports import copying, failures
from orchestrator.transports.base import MAX_FILE, MAX_LINE, Channel, Completed
from orchestrator.transports.lines import LineBuffer, LineTooLongError
from orchestrator.transports.local import LocalTransport
from orchestrator.transports.settings import FakeSettings, Fault, FaultPoint, LocalSettings

GARBAGE = b"\xff\xfe Segmentation fault (core dumped) {not json \x00"

START_TIMEOUT = 20.0
"""Seconds until a stalled ``start`` gives up, as ``connect_timeout`` does over ssh."""

_SLOW = 0.1
_FOREVER = float("inf")


class _Script:
    """Which fault strikes now. Counters are files, so that they outlive a connection."""

    def __init__(self, settings: FakeSettings) -> None:
        self._faults = settings.faults
        self._folder = Path(settings.root).expanduser().absolute() / ".faults"

    def next(self, point: FaultPoint) -> list[Fault]:
        """Count one call at ``point``; the faults it meets, in the order of the script."""
        return [f for i, f in enumerate(self._faults) if f.on == point and self._strikes(i, f)]

    def _strikes(self, index: int, fault: Fault) -> bool:
        count = self._count(index)
        return count > fault.after and (fault.times is None or count <= fault.after + fault.times)

    def _count(self, index: int) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._folder / str(index), os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(fd, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            count = int(file.read() or b"0") + 1
            file.seek(0)
            file.write(b"%d" % count)
            return count


class FakeChannel:
    """Faults on ``read`` strike per line, before the line is read (``drop``, ``stall``, …)."""

    def __init__(self, inner: Channel, transport: FakeTransport) -> None:
        self._inner, self._transport = inner, transport
        self._too_long: LineBuffer | None = None

    def send(self, line: bytes) -> None:
        self._transport.check()
        self._inner.send(line)

    def read_line(self, timeout: float) -> bytes | None:
        self._transport.check()
        device, corrupt = self._transport.device, False
        end = time.monotonic() + timeout
        for fault in self._transport.script.next("read"):
            match fault.kind:
                case "drop":
                    self._transport.drop()
                case "stall" | "slow":
                    if _delay(fault) >= (left := end - time.monotonic()):
                        time.sleep(max(0.0, left))
                        raise failures.silence(device, timeout)
                    time.sleep(_delay(fault))
                case "garbage":
                    return GARBAGE
                case "corrupt":
                    corrupt = True
                case "huge_line":
                    self._too_long = LineBuffer()
                    self._too_long.feed(b"x" * (MAX_LINE + 1))
                case "disk_full":
                    raise AssertionError("settings refuse a full disk on read")
                case _:
                    assert_never(fault.kind)
        if self._too_long is not None:
            try:
                self._too_long.take()
            except LineTooLongError:
                raise failures.line_too_long(device) from None
        line = self._inner.read_line(max(0.0, end - time.monotonic()))
        return _flipped(line) if line and corrupt else line

    def stderr_tail(self) -> str:
        return self._inner.stderr_tail()

    def returncode(self) -> int | None:
        return None if self._transport.down else self._inner.returncode()

    def close(self, timeout: float = 5.0) -> None:
        self._inner.close(timeout)


class FakeTransport:
    """Without faults, a LocalTransport. A ``drop`` ends the link for good: open another one."""

    def __init__(self, settings: FakeSettings, *, device: str) -> None:
        self.settings = settings
        self.device, self.script, self.down = device, _Script(settings), False
        self._inner = LocalTransport(LocalSettings(root=settings.root), device=device)
        self._channels: weakref.WeakSet[FakeChannel] = weakref.WeakSet()

    @property
    def address(self) -> str:
        return f"fake {self.settings.root}"

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._inner.__exit__(exc_type, exc, tb)

    def check(self) -> None:
        """InfraError E-LINK once the link was dropped."""
        if self.down:
            raise failures.link_down(self.device, "it was dropped")

    def drop(self) -> None:
        """The link goes down, and with it what was running through it."""
        self.down = True
        for channel in list(self._channels):
            channel.close(0.0)
        self.check()

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        end = time.monotonic() + timeout
        kinds = self._meet("run", argv[0] if argv else "run", timeout)
        left = max(0.0, end - time.monotonic())
        done = self._inner.run(argv, timeout=left, stdin=stdin, env=env)
        if "garbage" in kinds:
            return Completed(done.returncode, GARBAGE, done.stderr)
        if "corrupt" in kinds and done.stdout:
            return Completed(done.returncode, _flipped(done.stdout), done.stderr)
        return done

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Channel:
        self._meet("start", argv[0] if argv else "start", START_TIMEOUT)
        channel = FakeChannel(self._inner.start(argv, env=env), self)
        self._channels.add(channel)
        return channel

    def push(self, local: Path, remote: PurePosixPath, *, timeout: float) -> None:
        end = time.monotonic() + timeout
        kinds = self._meet("push", f"push of {local}", timeout)
        if "disk_full" in kinds:
            raise failures.disk_full(self.device, self.root() / remote)
        with _corrupted(local) if "corrupt" in kinds else contextlib.nullcontext(local) as source:
            self._inner.push(source, remote, timeout=max(0.0, end - time.monotonic()))

    def pull(
        self, remote: PurePosixPath, local: Path, *, timeout: float, limit: int = MAX_FILE
    ) -> None:
        end = time.monotonic() + timeout
        kinds = self._meet("pull", f"pull of {remote}", timeout)
        left = max(0.0, end - time.monotonic())
        if "corrupt" not in kinds:
            self._inner.pull(remote, local, timeout=left, limit=limit)
            return
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "whole"
            self._inner.pull(remote, whole, timeout=left, limit=limit)
            with copying.replacing(local, copying.our_file(local)) as write:
                write(_flipped(whole.read_bytes()))

    def ping(self, *, timeout: float) -> float:
        return copying.ping(self, self.device, timeout)

    def root(self) -> PurePosixPath:
        self.check()
        return self._inner.root()

    def _meet(self, point: FaultPoint, what: str, timeout: float) -> set[str]:
        """Live through what delays or prevents a call; the kinds that spoil its result."""
        self.check()
        left = timeout
        kinds: set[str] = set()
        for fault in self.script.next(point):
            match fault.kind:
                case "drop":
                    self.drop()
                case "stall" | "slow":
                    delay = _delay(fault)
                    if delay >= left:
                        time.sleep(left)
                        raise failures.deadline(self.device, what, timeout)
                    time.sleep(delay)
                    left -= delay
                case _:
                    kinds.add(fault.kind)
        return kinds


def _delay(fault: Fault) -> float:
    if fault.seconds is not None:
        return fault.seconds
    return _FOREVER if fault.kind == "stall" else _SLOW


def _flipped(data: bytes) -> bytes:
    """One bit in the middle is wrong."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


@contextlib.contextmanager
def _corrupted(local: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / local.name
        with copying.raising(copying.our_file(local)):
            copy.write_bytes(_flipped(local.read_bytes()))
        yield copy
