"""How often the kernel has refused this process something on account of its control groups.

Version 1 and 2 alike: the counters of the own group and of every group above it.
"""

from __future__ import annotations

import os
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

THREADS, MEMORY = "threads or processes", "memory"
_COUNTERS = (
    ("pids.events", "max", THREADS),
    ("memory.events", "oom", MEMORY),
    ("memory.events", "oom_kill", MEMORY),
    ("memory.oom_control", "oom_kill", MEMORY),
)
"""(file, field, what it counts refusals of).

How often memory.max or memory.failcnt were reached says nothing: page cache reaches them all the
time and is taken back.
"""


class Refused(NamedTuple):
    """``what`` the group ``path`` (a folder) refused."""

    what: str
    path: str


def refusals(root: str = "/") -> Dict[Refused, int]:
    """Refusals so far; nothing where no control group can be read. ``root``: where /proc is."""
    found: Dict[Refused, int] = {}
    for folder in _folders(root):
        for name, field, what in _COUNTERS:
            count = _fields(os.path.join(folder, name)).get(field)
            if count is not None:
                key = Refused(what, folder)
                found[key] = found.get(key, 0) + count
    return found


def since(before: Dict[Refused, int], now: Dict[Refused, int]) -> Optional[Refused]:
    """A refusal that was counted meanwhile, None without one."""
    return next((key for key in sorted(now) if now[key] > before.get(key, 0)), None)


def full(root: str = "/") -> Optional[str]:
    """The limit of threads and processes that is reached now, in words."""
    for folder in _folders(root):
        limit = _number(os.path.join(folder, "pids.max"))
        current = _number(os.path.join(folder, "pids.current"))
        if limit is not None and current is not None and current >= limit:
            return "pids.max of %s is %d" % (folder, limit)
    return None


def _folders(root: str) -> Iterator[str]:
    """Folders of the process's groups, each with all those above it, as they are mounted."""
    mounts = _mounts(root)
    for line in _lines(os.path.join(root, "proc/self/cgroup")):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        for names, inside, mounted in mounts:
            if not path.startswith("/") or not (set(controllers.split(",")) & names):
                continue
            below = os.path.relpath(path, inside)
            if below.startswith(".."):  # another namespace's view: all there is to see is its top
                below = "."
            folder = os.path.normpath(os.path.join(root, mounted.lstrip("/"), below))
            top = os.path.normpath(os.path.join(root, mounted.lstrip("/")))
            while True:
                yield folder
                if folder == top or not folder.startswith(top):
                    break
                folder = os.path.dirname(folder)


def _mounts(root: str) -> List[Tuple[set[str], str, str]]:
    """(controllers, the group that is mounted, where); version 2 has the controller "".

    proc_pid_mountinfo(5): root and mount point are fields 4 and 5; type and options follow a dash.
    """
    found = []
    for line in _lines(os.path.join(root, "proc/self/mountinfo")):
        ours, _, theirs = line.partition(" - ")
        fields, kind = ours.split(), theirs.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        names = {""} if kind[0] == "cgroup2" else set(kind[2].split(","))
        found.append((names, fields[3], fields[4]))
    return found


def _fields(path: str) -> Dict[str, int]:
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: str) -> Optional[int]:
    """None where there is no such file, and for "max"."""
    line = next(iter(_lines(path)), "")
    return int(line) if line.isdigit() else None


def _lines(path: str) -> List[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []  # no such controller here
