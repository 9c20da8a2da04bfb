"""The first process of a board: builds its root, starts its sshd, moves its sensors.

Started by board.py as ``python3 -m infra.virtual_farm.init NAME [host-users]``. Everything the
board is (mounts, processes, the registration of its emulator) lives in namespaces of its own, so
that the host stays as it was and nothing is left when this process ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import NoReturn

from . import boardroot, namespaces, sensors
from .board import HOST_USERS, BoardState, write_state
from .config import Board, FarmError, Paths, load_definitions
from .proctree import identify

TICK_S = 1.0
# An sshd that ends sooner than this, this often in a row, will not get better by itself.
SHORT_LIFE_S, MAX_SHORT_LIVES = 2.0, 5


def start_sshd() -> subprocess.Popen[bytes]:
    """Start the board's own sshd in the foreground, logging to our standard error."""
    return subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", boardroot.SSHD_CONFIG],
        stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        # The mask that lets us wait for children must not be inherited by anybody's shell.
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD}) and None,
    )


def reap(sshd_pid: int) -> bool:
    """Collect ended children, adopted ones too; True when sshd was among them."""
    ended = False
    try:
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            ended = ended or pid == sshd_pid
    except ChildProcessError:
        pass
    return ended


def serve(board: Board) -> NoReturn:
    """Run the board until it is killed; sshd is restarted as a real board would do it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    meter = sensors.Sensors(board)
    sshd, started, short_lives = start_sshd(), time.monotonic(), 0
    next_tick = time.monotonic() + TICK_S
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, max(0.0, next_tick - time.monotonic()))
        if reap(sshd.pid):
            short_lives = short_lives + 1 if time.monotonic() - started < SHORT_LIFE_S else 0
            if short_lives >= MAX_SHORT_LIVES:
                raise FarmError("sshd does not stay up")
            time.sleep(0.1 * short_lives)
            sshd, started = start_sshd(), time.monotonic()
        if time.monotonic() >= next_tick:
            meter.tick()
            next_tick = time.monotonic() + TICK_S


def main(argv: list[str]) -> int:
    """Bring a board up; returns in the launching process only, when the board has begun."""
    paths, definitions = Paths.from_environment(), load_definitions()
    board = definitions.select(argv[:1])[0]
    own_users = HOST_USERS not in argv[1:]

    def inside() -> NoReturn:
        boardroot.enter(paths, board, definitions.debian, own_binfmt=own_users)
        serve(board)

    def record(pid: int) -> None:
        process = identify(pid)
        if process is None:
            raise FarmError("the board ended at once")
        write_state(paths, board.name, BoardState(process, board.address, board.port))

    namespaces.start(inside, record, own_users=own_users)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (FarmError, OSError) as error:
        # The last line of the log is what `up` shows.
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(3)
