"""The one program that a unit's first process keeps running: sshd, or a phone's adbd."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from . import boardroot, kernel
from .config import Board, FarmError
from .phonebase import ADBD, GROUPS, USERS

# A program that ends sooner than this, this often in a row, will not get better by itself.
SHORT_LIFE_S, MAX_SHORT_LIVES = 2.0, 5


def _as_if_started_by_nobody() -> None:
    """Undo what a child inherits: the mask we wait with, and what `nohup` ignored for `up`."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _into_the_phone() -> None:
    kernel.forbid_vsock()
    _as_if_started_by_nobody()


def start_sshd() -> subprocess.Popen[bytes]:
    """Start the board's own sshd in the foreground, logging to our standard error."""
    return subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", boardroot.SSHD_CONFIG],
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        preexec_fn=_as_if_started_by_nobody,
    )


def start_adbd(board: Board) -> subprocess.Popen[bytes]:
    """Start the phone's adbd as Android's shell user, who then owns every command."""
    return subprocess.Popen(
        [f"/{ADBD}"],
        stdin=subprocess.DEVNULL,
        cwd="/",
        # adbd hands its environment on to every command.
        env={
            "PATH": "/system/bin",
            "HOME": "/",
            "ANDROID_DATA": "/data",
            "ANDROID_ROOT": "/system",
            "ADBD_PORT": str(board.port),
        },
        user=USERS["shell"],
        group=USERS["shell"],
        extra_groups=[GROUPS[name] for name in ("log", "adb", "inet", "readproc")],
        preexec_fn=_into_the_phone,
    )


class Service:
    """Starts the unit's server, starts it again when it ended, stops it when asked to."""

    def __init__(self, board: Board, spared: frozenset[int] = frozenset()) -> None:
        """Start the server. ``spared``: processes that are not its sessions."""
        self._board, self._spared = board, spared | {os.getpid()}
        self._short_lives = 0
        self._meant = False
        self._start()

    def _start(self) -> None:
        start = start_sshd if not self._board.phone else lambda: start_adbd(self._board)
        self.pid: int | None = start().pid
        self._started = time.monotonic()

    def kill(self) -> None:
        """End the server at once; it is started again as if it had crashed."""
        if self.pid is not None:
            self._meant = True
            os.kill(self.pid, signal.SIGKILL)

    def keep(self, ended: set[int], wanted: bool) -> None:
        """React to ended processes, and see to it that the server runs, or does not."""
        if self.pid in ended:
            self.pid = None
            short = not self._meant and time.monotonic() - self._started < SHORT_LIFE_S
            self._meant = False
            self._short_lives = self._short_lives + 1 if short else 0
            if self._short_lives >= MAX_SHORT_LIVES:
                name = "adbd" if self._board.phone else "sshd"
                raise FarmError(f"{name} does not stay up")
            if self._board.phone:
                self._end_sessions()
            time.sleep(0.1 * self._short_lives)
        if wanted and self.pid is None:
            self._start()
        elif not wanted:
            self.kill()

    def _end_sessions(self) -> None:
        """Android's init ends all of a service's processes with it; sshd's sessions live on."""
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) not in self._spared:
                try:
                    os.kill(int(process.name), signal.SIGKILL)
                except ProcessLookupError:
                    continue
