"""A folder as one .tar.gz that depends on nothing but names, modes and bytes."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from pathlib import Path

# Lowest level at which the largest bundle is within 2 % of the smallest: three times as fast.
LEVEL = 6


def pack(root: Path, target: Path) -> tuple[str, int]:
    """Write what is below ``root`` to ``target``; (sha256, size) of the archive.

    Sorted, without times and owners; modes are 755 for what is executable and 644 for the rest.
    Raises ValueError for anything but files and folders: toybox and vfat know no links.
    """
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", LEVEL, raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).as_posix()):
            _add(tar, path, path.relative_to(root).as_posix())
    with target.open("rb") as done:
        return hashlib.file_digest(done, "sha256").hexdigest(), target.stat().st_size


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        raise ValueError(f"{name} is neither a file nor a folder")
    if path.is_dir():
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
        return
    info.size = path.stat().st_size
    info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
    with path.open("rb") as content:
        tar.addfile(info, content)
