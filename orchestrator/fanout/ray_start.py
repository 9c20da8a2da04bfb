"""Starting Ray, or joining it: what is tried again, and why it did not come up.

Ray is imported from here and from nowhere else: it reads its environment while it is imported.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.errors import InfraError
from orchestrator.fanout.sessions import deaf_to_hangups, settle
from orchestrator.transports.failures import cause

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
if not os.environ.get("RAY_ADDRESS"):
    # Read while Ray is imported. The first makes Ray keep 127.0.0.1 as the address of its one node,
    # which on Linux it would swap for one that other machines reach. Without the last, Ray writes
    # a token into the home folder, readable by everybody and the same for every run.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

__all__ = ["NodeAffinitySchedulingStrategy", "failed", "ray", "slow", "start", "told"]

_SLOW = re.compile(r"tim(?:ed|e)[ -]?out|deadline exceeded", re.IGNORECASE)
_TAIL = 1 << 16
"""Bytes at the end of a log that are looked through."""
_INPROCESS = "--executor inprocess runs without Ray"


def start(join: bool) -> None:
    """Ray is up. One that was only slow is started a second time: a busy machine may need it.

    Raises InfraError E-RAY-SLOW, E-RAY-START, E-RAY-VERSION.
    """
    # Ray prints what befell its workers on stdout, where results belong; it has no other switch.
    # E-HUB-LOST says the same where the user looks.
    ray._private.worker._worker_logs_enabled = False
    before = set(_sessions())
    for last in (join, True):
        try:
            _init(join)
        except Exception as error:  # Ray raises what it likes, plain Exception included
            if last or not slow(error):
                began = [] if join else sorted(set(_sessions()) - before)
                raise failed(error, join, began[-1] / "logs" if began else None) from error
        else:
            return


def _init(join: bool) -> None:
    if join:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        return
    with _cleared(), deaf_to_hangups():
        ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
    node: Any = ray._private.worker._global_node
    settle(Path(node.get_session_dir_path()))


@contextlib.contextmanager
def _cleared() -> Iterator[None]:
    """Where Ray does not come up, what it has started by then ends: it forgets that itself."""
    before = set(_daemons())
    try:
        yield
    except BaseException:
        ray.shutdown()
        for pid in set(_daemons()) - before:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        raise


def _daemons() -> Iterator[int]:
    """Our own children that are programs of Ray's."""
    programs = os.fsencode(Path(ray.__file__).parent)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and (folder / "cmdline").read_bytes().startswith(programs):
                yield int(folder.name)


def slow(error: BaseException) -> bool:
    """Whether Ray gave up waiting for itself, which says nothing of what is wrong."""
    return isinstance(error, TimeoutError) or _SLOW.search(str(error)) is not None


def failed(error: BaseException, join: bool, logs: Path | None = None) -> InfraError:
    """Whatever class the error has: what the user is told of it. ``logs``: of the start."""
    said = " ".join(str(error).split()) or type(error).__name__
    if "Version mismatch" in said:
        return InfraError(
            "E-RAY-VERSION",
            said,
            fix="install the same Ray and Python on every hub",
            retryable=False,
        )
    why = told(logs)
    if not join and slow(error) and not why:
        return InfraError(
            "E-RAY-SLOW",
            f"Ray was not up in time, twice, {_load()}: {said[:200]}",
            fix=f"try again when less else runs here; {_INPROCESS}",
        )
    return InfraError(
        "E-RAY-START",
        f"cannot {'join' if join else 'start'} Ray: {said[:300]}" + (f"; {why}" if why else ""),
        fix=_INPROCESS,
        retryable=False,
    )


def _load() -> str:
    try:
        return f"at a load of {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    except OSError:
        return "on a machine that does not tell its load"


def _sessions() -> Iterator[Path]:
    """Folders of those that this process began."""
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray").glob(f"session_*_{os.getpid()}")


def told(logs: Path | None) -> str:
    """The last line of Ray's own logs that names a cause, with its file; "" where none does."""
    for name in ("gcs_server.err", "raylet.err", "gcs_server.out", "raylet.out"):
        with contextlib.suppress(OSError):
            data = (logs / name).read_bytes() if logs else b""
            why = cause(data[-_TAIL:].decode("utf-8", "replace"))
            if why:
                return f"{name}: {why}"
    return ""
