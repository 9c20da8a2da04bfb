"""Compile the stand-ins with the machine's own C compiler: no headers, nothing to download."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("edgetpu.c")
LIBRARY = "libedgetpu-standin.so"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
HIDDEN = "-fvisibility=hidden"


class BuildError(RuntimeError):
    """There is no compiler, or it refuses the source. One line."""


def folder() -> Path:
    """Where built stand-ins lie, and where matrices/inventories/lab.yaml looks for them."""
    return Path.home() / ".cache" / "assay" / "standins"


def build(into: Path | None = None, compiler: str = "cc") -> Path:
    """The stand-in for libedgetpu, compiled unless this very source has been. Raises BuildError.

    ``into``: the folder it is put into, made if need be.
    """
    target = (into or folder()) / LIBRARY
    source = SOURCE.read_bytes()
    wanted = hashlib.sha256(source + " ".join((compiler, *FLAGS, HIDDEN)).encode()).hexdigest()
    stamp = target.with_suffix(".source")
    if target.exists() and stamp.exists() and stamp.read_text() == wanted:
        return target
    if shutil.which(compiler) is None:
        raise BuildError(f"no C compiler ({compiler}) on this machine: install gcc")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    argv = [compiler, *FLAGS, HIDDEN, "-o", str(part), str(SOURCE)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        part.unlink(missing_ok=True)
        first = (done.stderr.strip() or "no message").splitlines()[0]
        raise BuildError(f"{compiler} does not compile {SOURCE.name}: {first}")
    part.replace(target)  # a process that has the old one loaded keeps it
    stamp.write_text(wanted)
    return target
