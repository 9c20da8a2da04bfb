"""Telling the kernel to run ARM programs through the board's own QEMU wrapper.

Since Linux 6.7 every user namespace may have a binfmt_misc of its own; then each board registers
the rule for itself and the host never sees it. Before, there is one for the whole machine: root
registers the rules there while boards are up, and `down` takes them back.
"""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

from . import kernel
from .config import FarmError, Paths

# Of an ELF file's first bytes: its class (32 or 64 bits) and machine, per architecture.
ELF = {"arm64": (r"\x02", r"\xb7"), "armhf": (r"\x01", r"\x28")}
MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"


def rule_name(arch: str) -> str:
    """Return the name of an architecture's rule."""
    return f"assay-{arch}"


def rule(arch: str) -> str:
    """Return the rule for little-endian programs and shared objects of an architecture."""
    width, machine = ELF[arch]
    magic = (
        r"\x7f\x45\x4c\x46" + width + r"\x01\x01" + r"\x00" * 9 + r"\x02\x00" + machine + r"\x00"
    )
    # Flag P hands over argv[0]. No flag F: the path is then looked up in the board's own root.
    return f":{rule_name(arch)}:M::{magic}:{MASK}:/.qemu/wrap:P"


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
    """Register the rules for the whole machine, unless they are."""
    if os.geteuid() != 0:
        raise FarmError("without root, boards need Linux 6.7 or later")
    place = folder(paths)
    place.mkdir(parents=True, exist_ok=True)
    if not place.is_mount():
        kernel.mount("binfmt", str(place), "binfmt_misc")
    for arch in ELF:
        if not (place / rule_name(arch)).exists():
            (place / "register").write_text(rule(arch), encoding="ascii")


def unregister_on_host(paths: Paths) -> None:
    """Take the rules back and leave no mount behind; nothing happens where there is none."""
    place = folder(paths)
    if place.is_mount():
        for arch in ELF:
            with (
                contextlib.suppress(FileNotFoundError),
                (place / rule_name(arch)).open("r+", encoding="ascii") as entry,
            ):
                entry.write("-1")
        kernel.unmount(str(place))
    if place.is_dir():
        place.rmdir()
