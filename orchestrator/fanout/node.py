"""This host as a node of a Ray cluster: the head, or a hub that reaches devices of its own.

A node lives as long as the command that started it, and nothing of it remains afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError, InputError
from orchestrator.fanout.interface import bound_to, check_interface
from orchestrator.matrix.fields import NAME_PATTERN
from orchestrator.transports.failures import last_words

RESOURCE = "hub-"
"""Before a hub's name: the Ray resource that its node offers."""
START_S = 120.0
"""How long a node may take to join."""
END_S = 3.0
"""How long Ray may take to end before it is killed."""
_OBJECTS = 512 * 1024 * 1024
"""Bytes for answers on their way; Ray takes a third of the memory unless told."""
HEADLESS_S = 20.0
"""A hub that misses its head for this long ends, so that its devices come free."""
_LOOK_S = 3.0
_UP = "Ray runtime started"


@dataclass(frozen=True)
class Place:
    """``interface``: the address to listen on, and no other. ``token``: file of the secret.

    ``folder``: for the log and what is compiled.
    """

    interface: str
    token: Path
    folder: Path

    def env(self) -> dict[str, str]:
        """Environment variables for every process that talks to the cluster.

        Raises InputError E-HUB-INTERFACE, E-HUB-TOKEN; InfraError E-HUB-COMPILER.
        """
        check_interface(self.interface)
        check_token(self.token)
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            **bound_to(self.interface, self.folder),
        }


def make_token(path: Path) -> None:
    """A random secret, mode 0600, unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_hex(32))


def check_token(path: Path) -> None:
    """Raises InputError E-HUB-TOKEN for a secret that is missing, short or open to others."""
    try:
        mode, size = path.stat().st_mode, len(path.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise _token(path, f"cannot be read: {why}", "copy it from the head") from None
    if mode & 0o077:
        raise _token(path, "is open to other users", f"chmod 600 {path}")
    if size < 32:
        raise _token(path, "is too short to be a secret", "copy it from the head again")


def _token(path: Path, what: str, fix: str) -> InputError:
    return InputError("E-HUB-TOKEN", f"the cluster's token {what}", where=str(path), fix=fix)


def head_command(interface: str, port: int) -> list[str]:
    """Cells without a hub, transforms and statistics run here."""
    return [*_ray(interface), "--head", f"--port={port}", "--include-dashboard=false"]


def hub_command(name: str, interface: str, address: str) -> list[str]:
    """It offers no core: tasks read the store, which only the coordinator's host has.

    Raises InputError E-MATRIX-NAME, E-HUB-ADDRESS.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise InputError(
            "E-MATRIX-NAME", f"{name!r:.80} is not a name", fix="letters, digits and . _ + -"
        )
    if not re.fullmatch(r"[^\s:]+:[0-9]{1,5}", address):
        raise InputError("E-HUB-ADDRESS", f"{address!r:.80} is not HOST:PORT", fix="of the head")
    resources = json.dumps({RESOURCE + name: 1})
    memory = f"--object-store-memory={_OBJECTS}"
    return [
        *_ray(interface),
        f"--address={address}",
        "--num-cpus=0",
        memory,
        "--resources",
        resources,
    ]


def _ray(interface: str) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
        *(f"--node-ip-address={interface}", "--disable-usage-stats", "--include-log-monitor=false"),
    ]


def serve(
    command: list[str],
    env: dict[str, str],
    log: Path,
    up: Callable[[], None],
    end: threading.Event,
    head: str | None = None,
) -> None:
    """Run a node until ``end`` is set; ``up`` is called when it has joined ``head`` (host:port).

    Raises InfraError E-HUB-START, E-RAY-VERSION: it did not join; E-HUB-ENDED: it ended by itself,
    or its head did not answer any more.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | env,
                start_new_session=True,
            )
    except OSError as error:
        raise InfraError(
            "E-HUB-START", f"Ray did not start: {error.strerror or error}", where=str(log)
        ) from error
    try:
        give_up = time.monotonic() + START_S
        while _UP not in _text(log) and not end.wait(0.1):
            late = process.poll() is not None or time.monotonic() > give_up
            if late and _UP not in _text(log):
                raise _not_started(_text(log), log)
        if not end.is_set():
            up()
        missed = _watch(process, end, head)
        if missed:
            raise InfraError(
                "E-HUB-ENDED", missed, where=str(log), fix="start it again", retryable=False
            )
    finally:
        _end(process)


def _watch(process: subprocess.Popen[bytes], end: threading.Event, head: str | None) -> str | None:
    """Why the node must end; None when told to. Ray itself misses a head that is cut off late."""
    looked = answered = time.monotonic()
    while not end.wait(0.5):
        if process.poll() is not None:
            return "Ray on this host ended"
        if head is None or time.monotonic() < looked + _LOOK_S:
            continue
        if _answers(head):
            answered = time.monotonic()
        looked = time.monotonic()
        if looked > answered + HEADLESS_S:
            return f"the head at {head} did not answer for {HEADLESS_S:g} s"
    return None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _LOOK_S):
            return True
    except OSError:
        return False


def _not_started(text: str, log: Path) -> InfraError:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    mismatch = [n for n, line in enumerate(lines) if "Version mismatch" in line]
    if mismatch:
        return InfraError(
            "E-RAY-VERSION",
            " ".join(lines[mismatch[-1] :]),
            fix="install the same Ray and Python on every hub",
            retryable=False,
        )
    return InfraError(
        "E-HUB-START",
        f"Ray did not start: {last_words(text)}",
        where=str(log),
        fix="is the head up, reached from here, and is the token its own?",
        retryable=False,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """All that it started is in its session; Ray's own `stop` would end every Ray on this host."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        give_up = time.monotonic() + END_S
        while any(_session(process.pid)) and time.monotonic() < give_up:
            process.poll()
            time.sleep(0.1)
    process.wait()


def _session(leader: int) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            # proc(5): the second field is a name in brackets, which may hold brackets and spaces.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] not in ("Z", "X"):
                yield int(folder.name)


def _text(log: Path) -> str:
    return log.read_text(errors="replace")
