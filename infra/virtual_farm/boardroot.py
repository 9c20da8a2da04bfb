"""Building the root of one board inside its own mount namespace, and moving into it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

from . import binfmt, kernel, sysfs
from .config import Board, Paths
from .rootfs import base_path, qemu_path, qemu_version

SSHD_CONFIG = "/etc/ssh/assay_sshd_config"
DISK_SIZE = "512m"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def sshd_config(board: Board) -> str:
    """Return the configuration of the board's sshd."""
    environment = {
        "LANG": "C.UTF-8",
        "PYTHONPATH": "/opt/site",
        # The base is read-only for good reason; a .pyc in the upper layer only costs memory.
        "PYTHONDONTWRITEBYTECODE": "1",
        **board.environment,
    }
    settings = {
        "Port": board.port,
        "ListenAddress": board.address,
        "HostKey": "/etc/ssh/ssh_host_ed25519_key",
        "PidFile": "none",
        "UsePAM": "no",
        "UseDNS": "no",
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PrintLastLog": "no",
        # Coordinators open many channels at once, and emulated logins are slow.
        "MaxSessions": 100,
        "MaxStartups": "100:30:200",
        "Subsystem": "sftp internal-sftp",
        # One line: sshd heeds only the first SetEnv.
        "SetEnv": " ".join(f"{name}={value}" for name, value in environment.items()),
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())


def identity(board: Board, version: str) -> str:
    """Return /etc/assay-board.json: bring-up, not the user, says what this device is."""
    facts = {"class": board.name, "emulated": True, "qemu": version, "cpu": board.cpu}
    return json.dumps(facts, indent=1) + "\n"


def write_files(root: Path, paths: Paths, board: Board, version: str) -> None:
    """Write what makes this board this board."""
    texts = {
        ".qemu/cpu": f"{board.qemu_cpu}\n",
        ".farm-cpuinfo": sysfs.cpuinfo(board),
        "var/log/lastlog": "",  # or sshd complains into every terminal
        "etc/hostname": f"{board.name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n{board.address} {board.name}\n",
        "etc/assay-board.json": identity(board, version),
        SSHD_CONFIG[1:]: sshd_config(board),
        "root/.ssh/authorized_keys": paths.key.with_suffix(".pub").read_text(encoding="ascii"),
    }
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    host_key = root / "etc/ssh/ssh_host_ed25519_key"
    shutil.copyfile(paths.host_key(board.name), host_key)
    host_key.chmod(0o600)
    sysfs.write_tree(root, sysfs.tree(board))


def mount_devices(dev: Path) -> None:
    """Fill /dev: making nodes is not allowed in a user namespace, borrowing the host's is."""
    for name in DEVICES:
        (dev / name).touch()
        kernel.mount(f"/dev/{name}", str(dev / name), flags=kernel.MS_BIND)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    options = "newinstance,ptmxmode=0666,mode=620,gid=5"
    kernel.mount("devpts", str(dev / "pts"), "devpts", 0, options)
    kernel.mount("shm", str(dev / "shm"), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=256m")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
             "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}  # fmt: skip
    for name, target in links.items():
        (dev / name).symlink_to(target)


def enter(paths: Paths, board: Board, suite: str, *, own_binfmt: bool) -> None:
    """Build the board's root and make it the root of this process (pid 1 of its namespaces)."""
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    state = paths.run / board.name
    disk = state / "mount"
    kernel.mount(f"assay-{board.name}", str(disk), "tmpfs", 0, f"size={DISK_SIZE},mode=755")
    root, upper, work = disk / "root", disk / "upper", disk / "work"
    for folder in (root, upper, work):
        folder.mkdir()
    base = base_path(paths, board.arch, suite)
    # userxattr: the other kind of attribute is not ours to write in a user namespace.
    layers = f"lowerdir={base},upperdir={upper},workdir={work},userxattr"
    kernel.mount(f"assay-{board.name}", str(root), "overlay", 0, layers)

    qemu = qemu_path(paths, board.qemu_version, board.arch)
    write_files(root, paths, board, qemu_version(qemu))
    kernel.mount(str(qemu), str(root / ".qemu/qemu"), flags=kernel.MS_BIND)
    kernel.mount(str(state / "shared"), str(root / ".farm"), flags=kernel.MS_BIND)
    kernel.mount("proc", str(root / "proc"), "proc")
    kernel.mount(str(root / ".farm-cpuinfo"), str(root / "proc/cpuinfo"), flags=kernel.MS_BIND)
    mount_devices(root / "dev")
    if own_binfmt and board.arch == "arm64":
        (root / ".qemu/binfmt").mkdir()
        kernel.mount("binfmt", str(root / ".qemu/binfmt"), "binfmt_misc")
        (root / ".qemu/binfmt/register").write_text(binfmt.RULE, encoding="ascii")
    kernel.pivot_root(str(root), ".old")
    os.umask(0o022)
    socket.sethostname(board.name)
