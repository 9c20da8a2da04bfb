"""Starting a function as the first process of fresh namespaces, as root or as an ordinary user."""

from __future__ import annotations

import os
import pwd
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from . import kernel
from .command import run
from .config import FarmError

FLAGS = kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID
# sshd's unprivileged child needs a second user, Debian's base system up to 65534.
IDS = 65536


def subordinate_range(table: str, user: str, uid: int) -> tuple[int, int] | None:
    """Return (first, count) of a user's line in /etc/subuid or /etc/subgid."""
    for line in table.splitlines():
        owner, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if owner in (user, str(uid)) and first.isdigit() and count.isdigit():
            return int(first), int(count)
    return None


def map_ids(pid: int) -> None:
    """Give a process that has unshared its user namespace the users it needs."""
    if os.geteuid() == 0:
        # Identity, but only over what this (perhaps itself nested) namespace has.
        for name in ("uid_map", "gid_map"):
            rows = Path(f"/proc/self/{name}").read_text(encoding="ascii").split()
            inner = [f"{rows[i]} {rows[i]} {rows[i + 2]}" for i in range(0, len(rows), 3)]
            Path(f"/proc/{pid}/{name}").write_text("\n".join(inner) + "\n", encoding="ascii")
        return
    user = pwd.getpwuid(os.geteuid()).pw_name
    for tool, file, own in (
        ("newuidmap", "/etc/subuid", os.geteuid()),
        ("newgidmap", "/etc/subgid", os.getegid()),
    ):
        try:
            table = Path(file).read_text(encoding="utf-8")
        except OSError:
            table = ""
        found = subordinate_range(table, user, os.geteuid())
        if found is None or found[1] < IDS - 1:
            raise FarmError(f"user {user} has no {IDS} subordinate ids in {file}")
        run(
            [tool, str(pid), "0", str(own), "1", "1", str(found[0]), str(IDS - 1)],
            "mapping the board's users",
        )


def run_and_exit(action: Callable[[], object]) -> None:
    """Run the action in a forked process and end that process, whatever happens."""
    code = 0
    try:
        action()
    except (FarmError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 3
    except BaseException:  # noqa: BLE001 - a forked child must not return into its parent's code
        traceback.print_exc()
        code = 70
    finally:
        sys.stderr.flush()
        os._exit(code)


def start(
    inside: Callable[[], object], record: Callable[[int], None], *, own_users: bool = True
) -> int:
    """Run ``inside`` as pid 1 of new namespaces; return its pid as the host sees it.

    ``own_users`` adds a user namespace, without which only root may do any of this.
    ``record`` is called with that pid before ``inside`` may begin: should this process be killed
    in between, the new one ends as well instead of running unknown to anybody.
    """
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(ready_read)
        os.close(go_write)

        def unshare_and_fork() -> None:
            kernel.unshare(FLAGS | kernel.CLONE_NEWUSER if own_users else FLAGS)
            os.write(ready_write, b"mapme\n")
            if os.read(go_read, 1) != b"m":
                return
            first = os.fork()
            if first == 0:
                os.close(ready_write)
                run_and_exit(lambda: inside() if os.read(go_read, 1) == b"g" else None)
            os.write(ready_write, f"{first}\n".encode())

        run_and_exit(unshare_and_fork)
    os.close(ready_write)
    os.close(go_read)
    with os.fdopen(ready_read, encoding="ascii") as ready, os.fdopen(go_write, "wb", 0) as go:
        try:
            if ready.readline() == "mapme\n":
                if own_users:
                    map_ids(middle)
                go.write(b"m")
                if (answer := ready.readline().strip()).isdigit():
                    record(int(answer))
                    go.write(b"g")
                    return int(answer)
        finally:
            go.close()
            os.waitpid(middle, 0)
    raise FarmError("no namespaces for the board (the reason is the line before)")
