"""What makes a system this phone: its identity, its properties, its storage, its sensors."""

from __future__ import annotations

import os
from pathlib import Path

from . import kernel, phonefiles, sysfs
from .boardroot import identity
from .config import Board, Paths
from .phonebase import USERS
from .thermal import ThermalModel

SHELL = USERS["shell"]


def furnish(root: Path, paths: Paths, board: Board, version: str) -> None:
    """Write what makes this phone this phone, and mount its storage."""
    (root / "etc/assay-board.json").write_text(identity(board, version), encoding="utf-8")
    (root / phonefiles.PROPERTIES).write_text(phonefiles.properties(board), encoding="utf-8")
    (root / phonefiles.DUMPS).mkdir()
    model = ThermalModel(board.thermal, board.frequencies_khz)
    sysfs.write_tree(root, phonefiles.tree(board, model))
    for path in root.glob("sys/**/*"):
        if path.name in phonefiles.UNREADABLE:
            path.chmod(0o400)
    spec = board.phone
    assert spec is not None
    data = root / "data"
    options = f"size={spec.data_mb}m,mode=771"
    kernel.mount("data", str(data), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
    (data / "local").mkdir(mode=0o751)
    (data / "local/tmp").mkdir(mode=0o771)
    for path, mode, user in (
        (data, 0o771, USERS["system"]),
        (data / "local", 0o751, USERS["root"]),
        (data / "local/tmp", 0o771, SHELL),
    ):
        os.chown(path, user, user)
        path.chmod(mode)
