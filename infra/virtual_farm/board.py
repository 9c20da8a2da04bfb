"""Units as the host sees them: starting, finding and ending them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from . import adbclient, control
from .command import run
from .config import HERE, Board, FarmError, Paths
from .proctree import ProcessId, end, is_alive

READY_TIMEOUT_S = 60.0
APPLY_TIMEOUT_S = 10.0
# Tells a board's first process to do without a user namespace of its own.
HOST_USERS = "host-users"


@dataclass(frozen=True)
class BoardState:
    """What is recorded about a board that was started."""

    process: ProcessId
    address: str
    port: int


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def write_state(paths: Paths, name: str, state: BoardState) -> None:
    """Record a started board."""
    write_atomically(paths.run / name / "state.json", json.dumps(asdict(state)) + "\n")


def read_state(paths: Paths, name: str) -> BoardState | None:
    """Return what is recorded about a board, None when nothing usable is."""
    try:
        raw = json.loads((paths.run / name / "state.json").read_text(encoding="utf-8"))
        return BoardState(ProcessId(**raw["process"]), raw["address"], raw["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running(paths: Paths, name: str) -> BoardState | None:
    """Return the state of a board whose first process is alive."""
    state = read_state(paths, name)
    return state if state and is_alive(state.process) else None


def answers(board: Board, timeout_s: float = 2.0) -> bool:
    """Tell whether a unit's server greets at its address."""
    try:
        if board.phone:
            adbclient.greet(board.address, board.port, timeout_s)
            return True
        with socket.create_connection((board.address, board.port), timeout_s) as link:
            link.settimeout(timeout_s)
            return link.recv(4) == b"SSH-"
    except (OSError, FarmError):
        return False


def check_address_free(board: Board) -> None:
    """Refuse to start a board where another program listens already."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((board.address, board.port))
        except OSError as error:
            raise FarmError(f"{board.address}:{board.port}: {error.strerror}") from error


def last_words(log: Path) -> str:
    """Return the last line of a board's log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    text = [line.strip() for line in lines if line.strip()]
    return text[-1].removeprefix("error: ") if text else "no reason given"


def start(paths: Paths, board: Board, *, own_users: bool = True) -> BoardState:
    """Start a unit and wait until its server answers."""
    options = [] if own_users else [HOST_USERS]
    check_address_free(board)
    folder = paths.run / board.name
    shutil.rmtree(folder, ignore_errors=True)
    for sub in ("mount", "shared"):
        (folder / sub).mkdir(parents=True)
    log = folder / "log"
    with log.open("wb") as output:
        launcher = subprocess.run(
            [sys.executable, "-m", f"{__package__}.init", board.name, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=HERE.parent.parent,
            # Root on the board can read this environment, and it may hold the user's secrets.
            env={"PATH": os.defpath, "ASSAY_FARM_DIR": str(paths.root)},
            # A session of its own: Ctrl-C in the user's terminal is not meant for boards.
            start_new_session=True,
            check=False,
        )
    if launcher.returncode != 0:
        raise FarmError(last_words(log))
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        state = running(paths, board.name)
        if state is None:
            raise FarmError(last_words(log))
        if answers(board):
            return state
        time.sleep(0.1)
    raise FarmError(f"no answer after {READY_TIMEOUT_S:.0f} s ({last_words(log)})")


def stop(paths: Paths, name: str) -> bool:
    """End a board and forget it; True when it was running."""
    state = read_state(paths, name)
    was_running = bool(state and is_alive(state.process))
    if state and not end(state.process):
        raise FarmError(f"process {state.process.pid} does not end")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(paths.run / name)
    return was_running


def ssh(paths: Paths, board: Board, command: str) -> list[str]:
    """Return the argv that runs a shell command on a board."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10"]
    options.append(f"UserKnownHostsFile={paths.known_hosts}")
    argv = ["ssh", "-F", "none", "-i", str(paths.key), "-p", str(board.port)]
    for option in options:
        argv += ["-o", option]
    return [*argv, f"root@{board.address}", command]


def shared_folder(paths: Paths, name: str) -> Path:
    """Return the folder that the host and a running unit share."""
    return paths.run / name / "shared"


def ask(paths: Paths, name: str, wanted: Mapping[str, float]) -> None:
    """Replace what a unit is asked for; wait for what must hold before anybody goes on."""
    shared = shared_folder(paths, name)
    write_atomically(shared / control.CONTROL_FILE.name, json.dumps(dict(wanted)))
    awaited = {key: wanted[key] for key in control.AWAITED if key in wanted}
    deadline = time.monotonic() + APPLY_TIMEOUT_S
    while awaited.items() - control.reported(shared).items():
        if time.monotonic() >= deadline:
            raise FarmError(f"{name} did not do it within {APPLY_TIMEOUT_S:.0f} s")
        time.sleep(0.02)


def ensure_keys(paths: Paths, names: list[str]) -> None:
    """Make the login key and every board's host key once, and write known_hosts."""
    for path in (paths.key, *(paths.host_key(name) for name in names)):
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"new-{path.name}")
        for leftover in (draft, draft.with_name(f"{draft.name}.pub")):
            leftover.unlink(missing_ok=True)
        run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "assay-farm", "-f", draft],
            "making ssh keys",
        )
        # The private half comes last: where it is, the public half is too.
        draft.with_name(f"{draft.name}.pub").replace(f"{path}.pub")
        draft.replace(path)


def write_known_hosts(paths: Paths, boards: list[Board]) -> None:
    """Write the host keys where users' ssh and the inventory look for them."""
    lines = []
    for board in boards:
        if board.phone:
            continue
        public = Path(f"{paths.host_key(board.name)}.pub").read_text(encoding="ascii").split()
        lines.append(f"[{board.address}]:{board.port} {public[0]} {public[1]}\n")
    write_atomically(paths.known_hosts, "".join(lines))
