"""A real adbd for this machine: Debian's, run by its own loader, bound to loopback only.

Debian 13 has the package and Debian 12 has not, so adbd brings its libraries along.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .command import extract, run
from .config import HERE, Paths
from .debian import Apt
from .rootfs import HOST_ARCH, build_atomically, content_key

SUITE = "trixie"
SHIM_SOURCE = HERE / "lo_bind.c"
LOADER = "ld-linux-x86-64.so.2"


def adbd_path(paths: Paths) -> Path:
    """Return where the adbd made from these ingredients belongs."""
    sources = (Path(__file__), SHIM_SOURCE)
    key = content_key([SUITE.encode(), *(source.read_bytes() for source in sources)])
    return paths.root / f"adbd-{HOST_ARCH}-{key}"


def ensure_adbd(paths: Paths) -> Path:
    """Fetch adbd unless it is there; return its folder. The caller holds the farm's lock."""

    def build(result: Path) -> None:
        apt = Apt(result.parent / "apt", HOST_ARCH, SUITE)
        unpacked = result.parent / "unpacked"
        unpacked.mkdir()
        for package in apt.fetch(["adbd"]):
            extract(package, unpacked, "unpacking adbd")
        shutil.copy2(unpacked / "usr/lib/android-sdk/platform-tools/adbd", result / "adbd")
        (result / "lib").mkdir()
        for library in (unpacked / "usr/lib").rglob("*.so*"):
            # Links become copies: all that adbd loads lies in one folder.
            if library.is_file() and "gconv" not in library.parts:
                shutil.copy2(library, result / "lib" / library.name)
        shim = ["gcc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
        run([*shim, "-o", result / "lo_bind.so", SHIM_SOURCE, "-ldl"], "compiling adbd's shim")

    build_atomically(adbd_path(paths), build)
    return adbd_path(paths)


def command(folder: Path) -> list[str]:
    """Return how to start the adbd in ``folder``; it listens on 127.0.0.1:$ADBD_PORT.

    Commands that it runs find their programs by the PATH it is given.
    """
    library = folder / "lib"
    return [
        str(library / LOADER), "--preload", str(folder / "lo_bind.so"),
        "--library-path", str(library), str(folder / "adbd"),
    ]  # fmt: skip
