"""Building the root of one unit inside its own mount namespace, and moving into it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from . import binfmt, boardroot, kernel, phoneroot, sysfs
from .config import Board, Definitions, Paths
from .prepare import base_path
from .rootfs import qemu_path, qemu_version

DISK_SIZE = "512m"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def mount_devices(dev: Path, *, shared_memory: bool) -> None:
    """Fill /dev: making nodes is not allowed in a user namespace, borrowing the host's is."""
    for name in DEVICES:
        (dev / name).touch()
        kernel.mount(f"/dev/{name}", str(dev / name), flags=kernel.MS_BIND)
    (dev / "pts").mkdir()
    options = "newinstance,ptmxmode=0666,mode=620,gid=5"
    kernel.mount("devpts", str(dev / "pts"), "devpts", 0, options)
    if shared_memory:
        (dev / "shm").mkdir()
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("shm", str(dev / "shm"), "tmpfs", flags, "size=256m")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
             "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}  # fmt: skip
    for name, target in links.items():
        (dev / name).symlink_to(target)


def enter(paths: Paths, board: Board, definitions: Definitions, *, own_binfmt: bool) -> None:
    """Build the unit's root and make it the root of this process (pid 1 of its namespaces)."""
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    state = paths.run / board.name
    disk = state / "mount"
    kernel.mount(f"assay-{board.name}", str(disk), "tmpfs", 0, f"size={DISK_SIZE},mode=755")
    root, upper, work = disk / "root", disk / "upper", disk / "work"
    for folder in (root, upper, work):
        folder.mkdir()
    # userxattr: the other kind of attribute is not ours to write in a user namespace.
    base = base_path(paths, board)
    layers = f"lowerdir={base},upperdir={upper},workdir={work},userxattr"
    kernel.mount(f"assay-{board.name}", str(root), "overlay", 0, layers)

    qemu = qemu_path(paths, definitions.qemus[board.qemu_version], board.arch)
    (root / ".qemu/cpu").write_text(f"{board.qemu_cpu}\n", encoding="ascii")
    furnish = phoneroot.furnish if board.phone else boardroot.write_files
    furnish(root, paths, board, qemu_version(qemu))
    kernel.mount(str(qemu), str(root / ".qemu/qemu"), flags=kernel.MS_BIND)
    kernel.mount(str(state / "shared"), str(root / ".farm"), flags=kernel.MS_BIND)
    kernel.mount("proc", str(root / "proc"), "proc")
    (root / ".farm-cpuinfo").write_text(sysfs.cpuinfo(board), encoding="ascii")
    kernel.mount(str(root / ".farm-cpuinfo"), str(root / "proc/cpuinfo"), flags=kernel.MS_BIND)
    # Android has no /dev/shm.
    mount_devices(root / "dev", shared_memory=board.phone is None)
    if own_binfmt and board.arch in binfmt.ELF:
        (root / ".qemu/binfmt").mkdir()
        kernel.mount("binfmt", str(root / ".qemu/binfmt"), "binfmt_misc")
        (root / ".qemu/binfmt/register").write_text(binfmt.rule(board.arch), encoding="ascii")
    kernel.pivot_root(str(root), ".old")
    os.umask(0o022)
    socket.sethostname(board.name)
