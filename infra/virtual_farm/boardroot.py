"""What makes a system this board: its identity, its sshd, its sensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from . import sysfs
from .config import Board, Paths

SSHD_CONFIG = "/etc/ssh/assay_sshd_config"


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
