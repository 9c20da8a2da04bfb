"""Who holds a lease: naming this process, telling whether another one is gone, and what then."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.store.records import Owner

if TYPE_CHECKING:
    pass


def this_process() -> Owner:
    """A new coordinator identity for this process."""
    pid = os.getpid()
    return Owner(uuid.uuid4().hex, socket.gethostname(), _boot_id(), pid, _start(pid) or 0)


def owner_is_dead(owner: Owner) -> bool:
    """True only where it is certain: same host, boot and PID namespace, and the process is gone.

    Anything unknown is False; then the lease has to be watched (queue/expiry.py).
    """
    here = _boot_id()
    if not here or owner.boot_id != here or owner.host != socket.gethostname():
        return False
    if not owner.pid_start:
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it exists and is another user's
    start = _start(owner.pid)
    return start is not None and start != owner.pid_start


def _boot_id() -> str:
    # The namespace belongs to it: in another container our PIDs mean other processes.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start(pid: int) -> int | None:
    """Start of the process in clock ticks since boot, -1 for a zombie, None where unreadable."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # proc(5): the second field is the name in brackets, and may hold brackets and spaces.
    fields = stat.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])
