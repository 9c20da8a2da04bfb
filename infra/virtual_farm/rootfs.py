"""What boards share: one read-only system per architecture, and the pinned QEMU.

Everything is built in a temporary folder and renamed into place, under a name that contains a hash
of what went in. So a folder that is there is complete, and a change to an ingredient builds anew.
"""

from __future__ import annotations

import compileall
import functools
import hashlib
import py_compile
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .command import extract, run
from .config import HERE, Board, FarmError, Paths
from .debian import BOARD_PACKAGES, Apt, unpack_system

REQUIREMENTS = HERE / "board-requirements.txt"
WRAPPER = HERE / "wrap.c"
SITE = "opt/site"
PYTHON = "usr/bin/python3.11"
REAL_PYTHON = "usr/bin/python3.11.real"
QEMU_PACKAGE = "qemu-user-static"
HOST_ARCH = "amd64"
MACHINE = {"arm64": "aarch64", "amd64": "x86_64"}
# glibc versions of the wheels we accept: Debian bookworm has 2.36.
GLIBC_TAGS = ("2_34", "2_28", "2_27", "2_17")


def content_key(parts: Iterable[bytes]) -> str:
    """Return a short hash of a sequence of ingredients."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:12]


def base_path(paths: Paths, arch: str, suite: str) -> Path:
    """Return where the shared system of an architecture belongs."""
    sources = (REQUIREMENTS, WRAPPER, HERE / "rootfs.py", HERE / "debian.py")
    parts = [suite.encode(), arch.encode(), *(path.read_bytes() for path in sources)]
    return paths.root / f"base-{arch}-{content_key(parts)}"


def qemu_path(paths: Paths, version: str, arch: str) -> Path:
    """Return where the QEMU of a pinned version belongs."""
    return paths.root / f"qemu-{version}" / f"qemu-{MACHINE[arch]}"


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


def remove_leftovers(paths: Paths) -> None:
    """Remove what an interrupted build left behind (the caller holds the farm's lock)."""
    for leftover in paths.root.glob("tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_outdated(paths: Paths, boards: Iterable[Board], suite: str) -> None:
    """Remove bases built from other ingredients (no board may be up: it might use one)."""
    current = {base_path(paths, board.arch, suite) for board in boards}
    for base in set(paths.root.glob("base-*")) - current:
        shutil.rmtree(base, ignore_errors=True)


def install_site(root: Path, arch: str) -> None:
    """Install the runtimes for another machine; nothing of them runs here."""
    machine = MACHINE[arch]
    tags = [f"manylinux_{glibc}_{machine}" for glibc in GLIBC_TAGS] + [f"manylinux2014_{machine}"]
    options = [f"--platform={tag}" for tag in tags]
    options += ["--abi=cp311", "--abi=abi3", "--abi=none", "--implementation=cp"]
    run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-input", "--no-compile", "--only-binary=:all:", "--python-version=3.11", *options,
            "--target", root / SITE, "--requirement", REQUIREMENTS,
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
        unpack_system(apt.fetch(BOARD_PACKAGES), result)
        shutil.rmtree(result.parent / "apt")
        (result / ".qemu/qemu").touch()
        install_site(result, arch)
        precompile(result)
        install_wrapper(result, arch)

    return build_atomically(base_path(paths, arch, suite), build)


def ensure_qemu(paths: Paths, version: str, suite: str) -> bool:
    """Make sure that the pinned QEMU exists; True when it was fetched."""

    def build(result: Path) -> None:
        apt = Apt(result.parent / "apt", HOST_ARCH, suite)
        unpacked = result.parent / "unpacked"
        unpacked.mkdir()
        extract(apt.fetch_alone(QEMU_PACKAGE), unpacked, "unpacking QEMU")
        for machine in MACHINE.values():
            shutil.move(unpacked / f"usr/bin/qemu-{machine}-static", result / f"qemu-{machine}")
        found = qemu_version(result / "qemu-aarch64")
        if not found.startswith(f"{version}."):
            raise FarmError(f"boards pin QEMU {version}, but {suite} has {found}")

    return build_atomically(qemu_path(paths, version, "arm64").parent, build)


def prepare(paths: Paths, boards: Iterable[Board], suite: str) -> None:
    """Build what the boards share and what is not there yet, side by side."""
    steps: dict[str, Callable[[], bool]] = {}
    for board in boards:
        qemu = functools.partial(ensure_qemu, paths, board.qemu_version, suite)
        base = functools.partial(ensure_base, paths, board.arch, suite)
        steps |= {f"QEMU {board.qemu_version}": qemu, f"{board.arch} base": base}

    def timed(name: str) -> None:
        begun = time.monotonic()
        if steps[name]():
            print(f"built {name} in {time.monotonic() - begun:.1f} s", flush=True)

    remove_leftovers(paths)
    with ThreadPoolExecutor() as pool:
        list(pool.map(timed, steps))


def qemu_version(program: Path) -> str:
    """Return the version a QEMU says it has, such as 7.2.22."""
    words = run([program, "--version"], "asking QEMU for its version").split()
    return next((word for word in words if word[0].isdigit()), "unknown")
