"""Temporary folders that say which process made them.

A process that is killed leaves its folders behind. Nobody else may remove them while it lives, and
its number alone says little once it is given again; so the number and the start of the process are
in the name, and whoever next makes such a folder removes those of processes that are gone.
"""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import stat
import tempfile
from typing import Iterator, Optional

_NAME = re.compile(r"assay-[a-z]+-([0-9a-f]{8})-([0-9]+)-([0-9]+)-\w{8}")


@contextlib.contextmanager
def scratch(what: str, inside: Optional[str] = None) -> Iterator[str]:
    """A folder for ``what`` (letters) that goes afterwards. Raises OSError.

    ``inside``: the folder to make it in, by default the system's for temporary files.
    """
    swept(inside or tempfile.gettempdir())
    prefix = "assay-%s-%s-" % (what, owner())
    with tempfile.TemporaryDirectory(prefix=prefix, dir=inside) as folder:
        yield folder


@functools.lru_cache(maxsize=None)
def swept(folder: str) -> int:
    """Remove what killed processes left in ``folder``, once in a process's life; how many."""
    return sweep(folder)


def sweep(folder: str) -> int:
    """Remove our folders of processes that are gone; how many. Never raises.

    Another user's, a link, and what was made in another PID namespace or before a reboot stay.
    """
    removed = 0
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            found = _NAME.fullmatch(name)
            if found and gone(*found.groups()) and _ours(os.path.join(folder, name)):
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
                removed += 1
    return removed


def owner() -> str:
    """This process: where its number counts, the number, and when it started (clock ticks)."""
    return "%s-%d-%d" % (_realm(), os.getpid(), started(os.getpid()) or 0)


def gone(realm: str, pid: str, start: str) -> bool:
    """Whether the process of those names is certainly gone; False where that cannot be told."""
    if realm != _realm() or not _realm().strip("0") or not int(start):
        return False
    now = started(int(pid))
    return now != int(start) if now is not None else not os.path.exists("/proc/%s" % pid)


def started(pid: int) -> Optional[int]:
    """Start of a process in clock ticks since boot, -1 for a zombie, None where unreadable."""
    try:
        with open("/proc/%d/stat" % pid, errors="replace") as file:
            # proc(5): the second field is the name in brackets, and may hold brackets and spaces.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])


def _realm() -> str:
    """A digest of boot and PID namespace, in which a number means one process; zeros: unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            told = "%s/%s" % (file.read().strip(), os.readlink("/proc/self/ns/pid"))
    except OSError:
        return "0" * 8
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _ours(path: str) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
