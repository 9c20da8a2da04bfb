"""An Android device, by the ``adb`` client as a subprocess. Import lazily."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self, TypeVar

from orchestrator.errors import DeadlineError, InfraError
from orchestrator.transports import adb_devices, adb_reach, command, copying, failures
from orchestrator.transports.adb_command import PUSHED, quoted
from orchestrator.transports.adb_devices import AdbDevice
from orchestrator.transports.adb_process import AdbChannel, AdbProcess
from orchestrator.transports.adb_server import AdbServer, Refused, environment, not_started
from orchestrator.transports.adb_track import Report, Tracker
from orchestrator.transports.base import MAX_FILE, Channel, Completed
from orchestrator.transports.channel import communicate
from orchestrator.transports.copying import Chunks, Write
from orchestrator.transports.lines import Tail
from orchestrator.transports.settings import AdbSettings

__all__ = ["AdbDevice", "AdbServer", "AdbTransport", "Tracker", "list_devices"]

T = TypeVar("T")

KILL_TIMEOUT = 3.0
"""Seconds for the second client that kills what missed its deadline."""

STALL = 20.0
"""Seconds that nothing sent may be taken before the link counts as down."""


def list_devices(adb: str = "adb", server_port: int = 5137) -> list[AdbDevice]:
    """Every device the server sees, in whatever state; the server is started if need be.

    Raises InfraError E-ADB-MISSING, E-ADB-SERVER, E-LINK.
    """
    server = AdbServer(adb, server_port)
    server.ensure()
    return server.devices()


class AdbTransport:
    """Connected between ``__enter__`` and ``__exit__``; calls from several threads are fine.

    Entering raises InfraError E-ADB-… (adb_devices, adb_reach, adb_server). All calls go to the
    connection found then, by its transport id: a device that is plugged in again is another
    connection. A link that broke stays down: open another transport.
    """

    def __init__(self, settings: AdbSettings, *, device: str) -> None:
        self._settings, self._device = settings, device
        self._server = AdbServer(settings.adb, settings.server_port)
        self._tracker: Tracker | None = None
        self._bound: AdbDevice | None = None
        self._lost: InfraError | None = None
        self._losing = threading.Lock()
        self._root: PurePosixPath | None = None
        self._channels: weakref.WeakSet[AdbChannel] = weakref.WeakSet()

    @property
    def settings(self) -> AdbSettings:
        """Once connected, with the USB path at which it was found, if it has one."""
        if self._bound is None or self._bound.usb is None:
            return self._settings
        return self._settings.model_copy(update={"usb": self._bound.usb})

    @property
    def address(self) -> str:
        return f"adb {self._settings.serial}"

    def __enter__(self) -> Self:
        self._server.ensure()
        end = time.monotonic() + self._settings.connect_timeout
        self._bind(adb_reach.reached(self._server, self._settings, self._device, end))
        try:
            self._greet(end)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _bind(self, device: AdbDevice) -> None:
        self._bound = device
        self._tracker = Tracker(self._server, self._on_report)
        self._tracker.__enter__()

    def _greet(self, end: float) -> None:
        """Over the network a connection may be half open: then it is made anew, once."""
        try:
            self._introduce(min(end, time.monotonic() + adb_reach.GREETING))
        except InfraError as error:
            networked = adb_devices.is_network(self._settings.serial)
            if not networked or error.id not in ("E-LINK", "E-DEADLINE"):
                raise
            self.__exit__(None, None, None)
            adb_reach.reconnect(self._server, self._settings, end)
            self._lost = None
            self._bind(adb_reach.reached(self._server, self._settings, self._device, end))
            self._introduce(end)

    def _introduce(self, end: float) -> None:
        """It speaks the shell protocol, answers, and is the unit that is meant."""
        assert self._bound is not None
        if self._bound.transport_id is None:
            raise adb_devices.unnumbered(self._device, self._settings)
        try:
            features = self._server.features(self._bound.transport_id)
        except Refused as error:
            raise self._why(str(error)) from error
        if "shell_v2" not in features:
            raise adb_reach.too_old(self._device)
        left = max(0.1, end - time.monotonic())
        self.ping(timeout=left)
        wanted = self._settings.fingerprint
        if wanted is not None:
            done = self.run(["getprop", "ro.build.fingerprint"], timeout=left)
            found = done.stdout.decode("utf-8", "replace").strip()
            if found != wanted:
                raise adb_devices.other_build(self._device, wanted, found)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for channel in list(self._channels):
            channel.close(copying.LEAVE)
        if self._tracker is not None:
            self._tracker.__exit__(None, None, None)
        # The connection stays: it belongs to the server, and others may be using it.
        self._tracker = self._bound = None

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
        what = argv[0] if argv else "run"
        status, err = self._run(what, timeout, argv, source, out.extend, env)
        return Completed(status, bytes(out), err)

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> Channel:
        tail = Tail()
        what = f"start of {argv[0]}" if argv else "start"
        seconds = self._settings.connect_timeout
        process = self._perform(what, seconds, argv, env, tail.feed, lambda process, _: process)
        channel = AdbChannel(process, tail, self._device, self._kill, STALL)
        self._channels.add(channel)
        return channel

    def push(self, local: Path, remote: PurePosixPath, *, timeout: float) -> None:
        end = time.monotonic() + timeout
        target = self.root() / remote
        part = target.with_name(copying.part_name())
        what = f"push of {local}"
        digest, size = hashlib.sha256(), 0
        ours = copying.our_file(local)
        with copying.opened(local, ours) as source:
            for chunk in copying.chunks(source, ours):
                digest.update(chunk)
                size += len(chunk)
        try:
            self._sync(what, timeout, end, local, part, target)
            argv = command.script(PUSHED, part, target, size, digest.hexdigest(), target.parent)
            left = max(0.1, end - time.monotonic())
            status, err = self._run(what, left, argv, iter(()), len, command.PLAIN)
        except BaseException:
            if self._lost is None:
                self._kill(None, part)
            raise
        if status != 0:
            raise failures.from_reason(self._device, target, err.decode("utf-8", "replace"))

    def _sync(
        self, what: str, seconds: float, end: float, local: Path, part: PurePosixPath,
        target: PurePosixPath,
    ) -> None:  # fmt: skip
        """The bytes, by adb's file protocol, to the temporary name."""
        argv = self._client("push", str(local.absolute()), str(part))
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment(),
                timeout=max(0.1, end - time.monotonic()),
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise failures.deadline(self._device, what, seconds) from None
        except OSError as error:
            raise not_started(argv[0], error) from error
        if done.returncode != 0:
            said = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
            errors = [line for line in said if "error:" in line] or said or ["adb push failed"]
            if not self._still_there():
                raise self._why(errors[0])
            raise failures.from_reason(self._device, target, errors[0])

    def pull(
        self, remote: PurePosixPath, local: Path, *, timeout: float, limit: int = MAX_FILE
    ) -> None:
        # By the shell, which says in one call what `adb pull` does not: how long the file is.
        origin = self.root() / remote
        with copying.replacing(local, copying.our_file(local)) as write:
            sized = copying.Sized(write, limit, self._device, origin)
            argv = command.script(command.PULL, origin)
            what = f"pull of {origin}"
            status, err = self._run(what, timeout, argv, iter(()), sized.feed, command.PLAIN)
            if status != 0:
                raise failures.from_reason(self._device, origin, err.decode("utf-8", "replace"))
            sized.end()

    def ping(self, *, timeout: float) -> float:
        return copying.ping(self, self._device, timeout)

    def root(self) -> PurePosixPath:
        if self._root is None:
            settings = self._settings
            self._root = copying.made_root(
                self, self._device, settings.root, settings.connect_timeout
            )
        return self._root

    def _run(
        self,
        what: str,
        seconds: float,
        argv: Sequence[str],
        source: Chunks,
        sink: Write,
        env: Mapping[str, str] | None,
        *,
        is_kill: bool = False,
    ) -> tuple[int, bytes]:
        """Exit status and stderr of a process that ran to its end."""
        err = bytearray()

        def feed(process: AdbProcess, end: float) -> int:
            status = communicate(process, source, sink, end, lambda: False)
            process.close()
            return status

        done = self._perform(what, seconds, argv, env, err.extend, feed, is_kill=is_kill)
        return done, bytes(err)

    def _perform(
        self,
        what: str,
        seconds: float,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        on_stderr: Write,
        then: Callable[[AdbProcess, float], T],
        *,
        is_kill: bool = False,
    ) -> T:
        """Start a process and do ``then`` with it and the deadline.

        Whatever goes wrong, and on Ctrl-C, its process group is killed. Raises DeadlineError
        E-DEADLINE, InfraError E-LINK, E-REMOTE-SHELL, E-ADB-….
        """
        end = time.monotonic() + seconds
        nonce = secrets.token_hex(8)
        argv = self._client("shell", "-T", quoted(argv, env, nonce))
        process = AdbProcess(argv, nonce, self._device, on_stderr, self._trouble, self._why)
        try:
            process.await_start(end)
            return then(process, end)
        except BaseException as error:
            note = "" if self._stopped(process, is_kill) else ", and could not be stopped on it"
            if isinstance(error, TimeoutError):
                raise failures.deadline(self._device, what, seconds, note) from None
            raise

    def _client(self, *words: str) -> list[str]:
        """A client's command line, for the very connection that was found on entering."""
        trouble = self._trouble()
        if trouble is not None:
            raise trouble
        if self._bound is None:
            raise failures.link_down(self._device, "not connected")
        return self._server.argv("-t", str(self._bound.transport_id), *words)

    def _stopped(self, process: AdbProcess, is_kill: bool) -> bool:
        """Kill what a call started."""
        known = process.pid is not None and not is_kill
        stopped = process.ended() or (known and self._kill(process.pid))
        process.close()
        return stopped

    def _kill(self, pid: int | None, part: PurePosixPath | None = None) -> bool:
        """Whether the process group is known to be gone. A link too dead for this is given up."""
        argv = command.script(command.KILL, pid or "", part or "")
        try:
            self._run("kill", KILL_TIMEOUT, argv, iter(()), len, None, is_kill=True)
        except DeadlineError:
            self._give_up(failures.link_down(self._device, f"no answer for {KILL_TIMEOUT:g} s"))
            return False
        except InfraError:
            return False
        return True

    def _trouble(self) -> InfraError | None:
        with self._losing:
            return self._lost

    def _give_up(self, error: InfraError) -> None:
        with self._losing:
            # That it came back elsewhere says more than that it went.
            if self._lost is None or error.id == "E-ADB-IDENTITY":
                self._lost = error

    def _on_report(self, report: Report) -> None:
        bound = self._bound
        if bound is not None:
            error = adb_reach.lost(report.devices, bound, self._device)
            if error is not None:
                self._give_up(error)

    def _still_there(self) -> bool:
        """Whether the server, asked anew, still has the connection in good order."""
        try:
            devices = self._server.devices()
        except InfraError as error:
            self._give_up(error)
            return False
        self._on_report(Report(time.monotonic(), tuple(devices)))
        return self._trouble() is None

    def _why(self, said: str) -> InfraError:
        """The error for a command that ended without a status."""
        self._still_there()
        trouble = self._trouble()
        if trouble is not None:
            return trouble
        return failures.link_down(self._device, said or "the connection was closed")
