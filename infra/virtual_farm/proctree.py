"""Process identity that survives pid reuse and reboots, and ending what we started."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

COLLECT_S = 3.0


@dataclass(frozen=True)
class ProcessId:
    """A process named so that no later process can be mistaken for it."""

    pid: int
    start_ticks: int
    boot_id: str


def boot_id() -> str:
    """Return an identifier that changes with every boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _stat(pid: int) -> tuple[str, int] | None:
    """Return (state, start time) of a process, None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name is in parentheses and may itself contain anything, so count from the last one.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def identify(pid: int) -> ProcessId | None:
    """Return the identity of a running process."""
    stat = _stat(pid)
    return None if stat is None else ProcessId(pid, stat[1], boot_id())


def is_alive(process: ProcessId) -> bool:
    """Tell whether exactly this process still runs (a zombie does not)."""
    if process.boot_id != boot_id():
        return False
    stat = _stat(process.pid)
    return stat is not None and stat[0] not in "ZX" and stat[1] == process.start_ticks


def end(process: ProcessId, timeout_s: float = 20.0) -> bool:
    """Kill the process and wait until it is gone; False when it would not go.

    Killing the init of a PID namespace ends every process in it before the init itself is gone.
    """
    try:
        # The descriptor pins the process, so that what was checked is what gets the signal.
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not is_alive(process):
            return True
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        ended = bool(select.select([handle], [], [], timeout_s)[0])
    finally:
        os.close(handle)
    # Give the host's init a moment to collect it, so that nothing at all is left to be seen.
    patience = time.monotonic() + COLLECT_S
    while ended and identify(process.pid) == process and time.monotonic() < patience:
        time.sleep(0.01)
    return ended
