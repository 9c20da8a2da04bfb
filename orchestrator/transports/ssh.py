"""A device behind sshd, by paramiko. Imports paramiko: import lazily."""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self, TypeVar

import paramiko

from orchestrator.errors import DeadlineError, InfraError
from orchestrator.transports import command, copying, failures, ssh_files
from orchestrator.transports.base import MAX_FILE, Channel, Completed
from orchestrator.transports.bounded import bounded
from orchestrator.transports.channel import communicate
from orchestrator.transports.copying import Chunks, Write
from orchestrator.transports.lines import Tail
from orchestrator.transports.settings import SshSettings
from orchestrator.transports.ssh_config import Endpoint, resolve
from orchestrator.transports.ssh_link import BROKEN, Link, dialled, reason
from orchestrator.transports.ssh_process import RemoteProcess, SshChannel

T = TypeVar("T")

KILL_TIMEOUT = 3.0
"""Seconds for the second session that kills what missed its deadline."""

_GRACE = 0.5
"""Seconds beyond its deadline after which a call is stuck inside paramiko and the link is cut."""

_SESSION_FREED = 1.0
"""Seconds in which sshd may still count a session that was closed just now."""


class _Call:
    """One call's deadline and what must be undone when it is missed."""

    def __init__(
        self,
        what: str,
        seconds: float,
        part: PurePosixPath | None = None,
        *,
        is_kill: bool = False,
    ) -> None:
        self.what, self.seconds, self.part, self.is_kill = what, seconds, part, is_kill
        self.end = time.monotonic() + seconds
        self.stop = threading.Event()
        self.process: RemoteProcess | None = None

    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())


class SshTransport:
    """Connected between ``__enter__`` and ``__exit__``; calls from several threads are fine.

    Entering raises InfraError E-SSH-UNREACHABLE, E-SSH-HOSTKEY-UNKNOWN, E-SSH-HOSTKEY,
    E-SSH-AUTH and InputError E-SSH-CONFIG. A link that broke stays down: open another transport.
    """

    def __init__(self, settings: SshSettings, *, device: str) -> None:
        self.settings, self._device = settings, device
        self._link: Link | None = None
        self._sftp = ssh_files.Sftp(self._cut)
        self._root: PurePosixPath | None = None
        self._endpoint: Endpoint | None = None
        self._channels: weakref.WeakSet[SshChannel] = weakref.WeakSet()

    @property
    def address(self) -> str:
        if self._endpoint is None:
            return f"ssh {self.settings.host}"
        return f"ssh {self._endpoint.address}{self._endpoint.through}"

    def __enter__(self) -> Self:
        endpoint = self._endpoint = resolve(self.settings)
        self._link = dialled(endpoint, self.settings, self._device, login=True)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for channel in list(self._channels):
            channel.close(copying.LEAVE)
        if self._link is not None:
            self._link.close()
            self._link = None

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        out = bytearray()
        source = (stdin[i : i + copying.CHUNK] for i in range(0, len(stdin), copying.CHUNK))
        call = _Call(argv[0] if argv else "run", timeout)
        status, err = self._run(call, argv, source, out.extend, env)
        return Completed(status, bytes(out), err)

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Channel:
        tail = Tail()
        call = _Call(f"start of {argv[0]}" if argv else "start", self.settings.connect_timeout)
        process = self._perform(call, argv, env, tail.feed, lambda process: process)
        stall = 4 * self.settings.keepalive
        channel = SshChannel(process, tail, self._device, self._kill, stall)
        self._channels.add(channel)
        return channel

    def push(self, local: Path, remote: PurePosixPath, *, timeout: float) -> None:
        target = self.root() / remote
        ours = copying.our_file(local)
        part = target.with_name(copying.part_name())
        call = _Call(f"push of {local}", timeout, part)
        with copying.opened(local, ours) as source:
            if self._by_sftp(call, lambda c: ssh_files.put(c, source, part, target)):
                return
            source.seek(0)
            size = os.fstat(source.fileno()).st_size
            argv = command.script(command.PUSH, target.parent, part, target, size)
            status, err = self._run(call, argv, copying.chunks(source, ours), len, command.PLAIN)
        if status != 0:
            raise failures.from_reason(self._device, target, err.decode("utf-8", "replace"))

    def pull(
        self, remote: PurePosixPath, local: Path, *, timeout: float, limit: int = MAX_FILE
    ) -> None:
        origin = self.root() / remote
        call = _Call(f"pull of {origin}", timeout)
        with copying.replacing(local, copying.our_file(local)) as write:
            if self._by_sftp(call, lambda c: ssh_files.fetch(c, origin, write, limit)):
                return
            sized = copying.Sized(write, limit, self._device, origin)
            argv = command.script(command.PULL, origin)
            status, err = self._run(call, argv, iter(()), sized.feed, command.PLAIN)
            if status != 0:
                raise failures.from_reason(self._device, origin, err.decode("utf-8", "replace"))
            sized.end()

    def _by_sftp(self, call: _Call, work: Callable[[paramiko.SFTPClient], bool]) -> bool:
        """Whether the fast path did it. At the deadline the half-written file is removed."""
        try:
            return self._sftp.attempt(self._connected(), work, call.left())
        except TimeoutError:
            if call.part is not None:
                self._kill(None, call.part)
            raise failures.deadline(self._device, call.what, call.seconds) from None

    def ping(self, *, timeout: float) -> float:
        return copying.ping(self, self._device, timeout)

    def root(self) -> PurePosixPath:
        if self._root is None:
            settings = self.settings
            self._root = copying.made_root(
                self, self._device, settings.root, settings.connect_timeout
            )
        return self._root

    def _run(
        self,
        call: _Call,
        argv: Sequence[str],
        source: Chunks,
        sink: Write,
        env: Mapping[str, str] | None,
    ) -> tuple[int, bytes]:
        """Exit status and stderr of a process that ran to its end."""
        err = bytearray()

        def feed(process: RemoteProcess) -> int:
            status = communicate(process, source, sink, call.end, call.stop.is_set)
            process.close()
            return status

        return self._perform(call, argv, env, err.extend, feed), bytes(err)

    def _perform(
        self,
        call: _Call,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        on_stderr: Write,
        then: Callable[[RemoteProcess], T],
    ) -> T:
        """Start a process and do ``then`` with it before the call's deadline.

        Whatever goes wrong, and on Ctrl-C, its process group is killed. Raises DeadlineError
        E-DEADLINE, InfraError E-LINK, E-SSH-SESSIONS, E-REMOTE-SHELL.
        """
        nonce = secrets.token_hex(8)
        words = command.quoted(argv, env, nonce)

        def work() -> T:
            transport = self._connected()
            channel = _session(transport, self._device, call.left() + 2 * _GRACE)
            process = RemoteProcess(transport, channel, nonce, self._device, on_stderr)
            call.process = process
            channel.exec_command(words)
            process.await_start(call.end, call.stop.is_set)
            return then(process)

        try:
            return bounded(work, call.left() + _GRACE, self._cut, call.stop.set)
        except BaseException as error:
            note = "" if self._stopped(call) else ", and could not be stopped on the device"
            if isinstance(error, TimeoutError):
                raise failures.deadline(self._device, call.what, call.seconds, note) from None
            if isinstance(error, BROKEN):
                raise failures.link_down(self._device, reason(error)) from error
            raise

    def _connected(self) -> paramiko.Transport:
        transport = self._link.transport if self._link is not None else None
        if transport is None or not transport.is_active():
            raise failures.link_down(self._device, "not connected")
        return transport

    def _stopped(self, call: _Call) -> bool:
        """Kill what the call started, and remove its half-written file."""
        process = call.process
        if process is None:
            return False
        known = process.pid is not None and not call.is_kill
        stopped = process.ended() or (known and self._kill(process.pid, call.part))
        process.close()
        return stopped

    def _kill(self, pid: int | None, part: PurePosixPath | None = None) -> bool:
        """Whether the process group is known to be gone. A link too dead for this is cut."""
        argv = command.script(command.KILL, pid or "", part or "")
        try:
            self._run(_Call("kill", KILL_TIMEOUT, is_kill=True), argv, iter(()), len, None)
        except DeadlineError:
            self._cut()
            return False
        except InfraError:
            return False
        return True

    def _cut(self) -> None:
        if self._link is not None:
            self._link.abandon()


def _session(transport: paramiko.Transport, device: str, timeout: float) -> paramiko.Channel:
    give_up = time.monotonic() + min(timeout, _SESSION_FREED)
    while True:
        try:
            return transport.open_session(timeout=timeout)
        except paramiko.ChannelException as error:
            if time.monotonic() > give_up:
                raise InfraError(
                    "E-SSH-SESSIONS",
                    f"{device}: sshd opens no further session on this connection: {error.text}",
                    fix="raise MaxSessions in its sshd_config",
                ) from error
            time.sleep(0.05)
