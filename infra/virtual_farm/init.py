"""The first process of a unit: builds its root, keeps its server running, moves its sensors.

Started by board.py as ``python3 -m infra.virtual_farm.init NAME [host-users]``. Everything the
unit is (mounts, processes, the registration of its emulator) lives in namespaces of its own, so
that the host stays as it was and nothing is left when this process ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import NoReturn

from . import control, kernel, namespaces, relay, sensors, unitroot
from .board import HOST_USERS, BoardState, write_state
from .config import Board, FarmError, Paths, load_definitions
from .namespaces import run_and_exit
from .proctree import identify
from .service import Service

TICK_S = 1.0
# How soon it is noticed that something was asked for.
POLL_S = 0.1


def reap() -> set[int]:
    """Collect ended children, adopted ones too; return which."""
    ended = set()
    try:
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            ended.add(pid)
    except ChildProcessError:
        pass
    return ended


def start_relay(board: Board, listener: socket.socket) -> int:
    """Leave the host's network, with a process of ours still listening there; return its pid."""
    kernel.unshare(kernel.CLONE_NEWNET)
    kernel.loopback_up()
    watch = control.Watch()
    shown: list[bool] = []

    def plugged() -> bool:
        now = watch().get("cable", 1) != 0
        if shown != [now]:
            shown[:] = [now]
            control.report(control.SHARED / "relay.json", {"cable": int(now)})
        return now

    pid = os.fork()
    if pid == 0:
        run_and_exit(lambda: relay.serve(listener, ("127.0.0.1", board.port), plugged))
    listener.close()
    return pid


def serve(board: Board, relay_pid: int | None) -> NoReturn:
    """Run the unit until it is killed; its server is restarted as a real one's would be."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    meter, watch = sensors.Sensors(board), control.Watch()
    service = Service(board, frozenset() if relay_pid is None else frozenset({relay_pid}))
    kicks, shown = 0.0, None
    next_tick = time.monotonic() + TICK_S
    while True:
        patience = min(POLL_S, next_tick - time.monotonic())
        signal.sigtimedwait({signal.SIGCHLD}, max(0.0, patience))
        ended = reap()
        if relay_pid in ended:
            raise FarmError("the relay ended")
        asked = watch()
        if asked.get(control.KICKS, 0) > kicks:
            kicks = asked[control.KICKS]
            service.kill()
        service.keep(ended, asked.get("adbd", 1) != 0)
        done = {control.KICKS: kicks, "adbd": int(service.pid is not None)}
        if done != shown:
            control.report(control.SHARED / "init.json", done)
            shown = done
        if time.monotonic() >= next_tick:
            meter.tick()
            next_tick = time.monotonic() + TICK_S


def main(argv: list[str]) -> int:
    """Bring a unit up; returns in the launching process only, when the unit has begun."""
    paths, definitions = Paths.from_environment(), load_definitions()
    board = definitions.select(argv[:1])[0]
    own_users = HOST_USERS not in argv[1:]

    def inside() -> NoReturn:
        listener = relay.listen(board) if board.phone else None
        unitroot.enter(paths, board, definitions, own_binfmt=own_users)
        serve(board, start_relay(board, listener) if listener else None)

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
