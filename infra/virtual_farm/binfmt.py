"""Telling the kernel to run AArch64 programs through the board's own QEMU wrapper.

Since Linux 6.7 every user namespace may have a binfmt_misc of its own; then each board registers
the rule for itself and the host never sees it. Before, there is one for the whole machine: root
registers the rule there while boards are up, and `down` takes it back.
"""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

from . import kernel
from .config import FarmError, Paths

NAME = "assay-aarch64"
# Start of a little-endian 64-bit AArch64 ELF file (program or shared object), and the bits of it
# that count.
MAGIC = r"\x7f\x45\x4c\x46\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
# Flag P hands over argv[0]. No flag F: the path is then looked up in the board's own root.
RULE = f":{NAME}:M::{MAGIC}:{MASK}:/.qemu/wrap:P"


def per_namespace(release: str | None = None) -> bool:
    """Tell whether this kernel (or the named release) has a binfmt_misc per user namespace."""
    major, minor = (release or platform.release()).split(".")[:2]
    digits = "".join(c for c in minor if c.isdigit())
    return (int(major), int(digits)) >= (6, 7)


def folder(paths: Paths) -> Path:
    """Return where the machine's binfmt_misc is mounted for us.

    A folder of our own, because a mount at the usual place has been seen to look empty while its
    rules were in force.
    """
    return paths.root / "binfmt"


def register_on_host(paths: Paths) -> None:
    """Register the rule for the whole machine, unless it is."""
    if os.geteuid() != 0:
        raise FarmError("without root, boards need Linux 6.7 or later")
    place = folder(paths)
    place.mkdir(parents=True, exist_ok=True)
    if not place.is_mount():
        kernel.mount("binfmt", str(place), "binfmt_misc")
    if not (place / NAME).exists():
        (place / "register").write_text(RULE, encoding="ascii")


def unregister_on_host(paths: Paths) -> None:
    """Take the rule back and leave no mount behind; nothing happens where there is none."""
    place = folder(paths)
    if place.is_mount():
        with contextlib.suppress(FileNotFoundError), (place / NAME).open("r+") as entry:
            entry.write("-1")
        kernel.unmount(str(place))
    if place.is_dir():
        place.rmdir()
