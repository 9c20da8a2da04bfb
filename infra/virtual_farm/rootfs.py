"""What boards share: one read-only system per architecture, and the pinned QEMUs.

Everything is built in a temporary folder and renamed into place, under a name that contains a hash
of what went in. So a folder that is there is complete, and a change to an ingredient builds anew.
"""

from __future__ import annotations

import compileall
import hashlib
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from .command import extract, run
from .config import HERE, FarmError, Paths, QemuPackage
from .debian import BOARD_PACKAGES, MORE_PACKAGES, Apt, unpack_system

REQUIREMENTS = {
    "arm64": HERE / "board-requirements.txt",
    "amd64": HERE / "board-requirements.txt",
    "armhf": HERE / "board-requirements-armhf.txt",
}
WRAPPER = HERE / "wrap.c"
SITE = "opt/site"
PYTHON = "usr/bin/python3.11"
REAL_PYTHON = "usr/bin/python3.11.real"
HOST_ARCH = "amd64"
# What `uname -m` says, what QEMU calls it, and what wheels call it.
MACHINE = {"arm64": "aarch64", "armhf": "armv7l", "amd64": "x86_64"}
QEMU_NAME = {**MACHINE, "armhf": "arm"}
# glibc versions of the wheels we accept: Debian bookworm has 2.36.
GLIBC_TAGS = ("2_34", "2_28", "2_27", "2_17")


def content_key(parts: Iterable[bytes]) -> str:
    """Return a short hash of a sequence of ingredients."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:12]


def base_path(paths: Paths, arch: str, suite: str) -> Path:
    """Return where the boards' shared system of an architecture belongs."""
    sources = (REQUIREMENTS[arch], WRAPPER, HERE / "rootfs.py", HERE / "debian.py")
    parts = [suite.encode(), arch.encode(), *(path.read_bytes() for path in sources)]
    return paths.root / f"base-{arch}-{content_key(parts)}"


def qemu_path(paths: Paths, qemu: QemuPackage, arch: str) -> Path:
    """Return where the emulator of an architecture belongs."""
    return qemu_folder(paths, qemu) / f"qemu-{QEMU_NAME[arch]}"


def build_atomically(target: Path, build: Callable[[Path], None]) -> bool:
    """Build a folder unless it is there; True when it was built."""
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(
            prefix=f"tmp-{target.name}-", dir=target.parent, ignore_cleanup_errors=True
        ) as scratch:
            result = Path(scratch) / "result"
            result.mkdir()
            build(result)
            result.rename(target)
    except OSError as error:
        raise FarmError(f"building {target.name}: {error.strerror or error}") from error
    return True


def install_site(root: Path, arch: str) -> None:
    """Install the runtimes for another machine; nothing of them runs here."""
    machine = MACHINE[arch]
    tags = [f"manylinux_{glibc}_{machine}" for glibc in GLIBC_TAGS] + [f"manylinux2014_{machine}"]
    options = [f"--platform={tag}" for tag in tags]
    options += ["--abi=cp311", "--abi=abi3", "--abi=none", "--implementation=cp"]
    run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-input", "--no-compile", "--no-deps", "--only-binary=:all:",
            "--python-version=3.11", *options,
            "--target", root / SITE, "--requirement", REQUIREMENTS[arch],
        ],
        f"installing the {arch} runtimes",
    )  # fmt: skip


def precompile(root: Path) -> None:
    """Write the .pyc files: emulated, compiling costs three times what importing does.

    Only possible where this Python writes the same format as the boards' 3.11.
    """
    if sys.version_info[:2] != (3, 11):
        return
    for folder in (SITE, "usr/lib/python3.11", "usr/lib/python3"):
        compileall.compile_dir(
            root / folder,
            stripdir=str(root),
            prependdir="/",
            quiet=2,
            workers=2,
            # Valid whatever the times of the files are, since nobody edits the base.
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def install_wrapper(root: Path, arch: str) -> None:
    """Compile the program that starts QEMU and put it where it belongs on this architecture."""
    argv = ["gcc", "-O2", "-Wall", "-Wextra", "-static"]
    target = root / ".qemu/wrap"
    if arch == HOST_ARCH:
        (root / PYTHON).rename(root / REAL_PYTHON)
        argv.append(f'-DREAL_PROGRAM="/{REAL_PYTHON}"')
        target = root / PYTHON
    run([*argv, "-o", target, WRAPPER], "compiling the board's QEMU wrapper")


def ensure_base(paths: Paths, arch: str, suite: str) -> bool:
    """Make sure that the shared system of an architecture exists; True when it was built."""

    def build(result: Path) -> None:
        apt = Apt(result.parent / "apt", arch, suite)
        packages = (*BOARD_PACKAGES, *MORE_PACKAGES.get(arch, ()))
        unpack_system(apt.fetch(packages), result)
        shutil.rmtree(result.parent / "apt")
        (result / ".qemu/qemu").touch()
        install_site(result, arch)
        precompile(result)
        install_wrapper(result, arch)

    return build_atomically(base_path(paths, arch, suite), build)


def ensure_qemu(paths: Paths, qemu: QemuPackage) -> bool:
    """Make sure that a pinned QEMU exists; True when it was fetched."""

    def build(result: Path) -> None:
        apt = Apt(result.parent / "apt", HOST_ARCH, qemu.suite)
        unpacked = result.parent / "unpacked"
        unpacked.mkdir()
        extract(apt.fetch_alone(qemu.package), unpacked, "unpacking QEMU")
        for name in QEMU_NAME.values():
            # Debian called its static programs so as long as there were others beside them.
            old = unpacked / f"usr/bin/qemu-{name}-static"
            program = old if old.exists() else unpacked / f"usr/bin/qemu-{name}"
            shutil.move(program, result / f"qemu-{name}")
        found = qemu_version(result / "qemu-aarch64")
        if not found.startswith(f"{qemu.version}."):
            raise FarmError(f"boards pin QEMU {qemu.version}, but {qemu.suite} has {found}")

    return build_atomically(qemu_folder(paths, qemu), build)


def qemu_folder(paths: Paths, qemu: QemuPackage) -> Path:
    """Return where a pinned QEMU belongs."""
    parts = ("|".join(QEMU_NAME.values()).encode(), qemu.suite.encode(), qemu.package.encode())
    return paths.root / f"qemu-{qemu.version}-{content_key(parts)}"


def qemu_version(program: Path) -> str:
    """Return the version a QEMU says it has, such as 7.2.22."""
    words = run([program, "--version"], "asking QEMU for its version").split()
    return next((word for word in words if word[0].isdigit()), "unknown")
