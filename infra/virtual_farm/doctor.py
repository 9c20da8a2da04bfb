"""Whether this machine can run the farm, and whether running boards are sound."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import adbclient, binfmt, debian, kernel, namespaces, rootfs
from . import board as boards
from .config import HERE, Board, Definitions, FarmError, Paths
from .prepare import is_prepared

PACKAGES = HERE / "packages.txt"
NEEDED_BYTES = 3 * 1024**3
EXIT_CANNOT = 3
PROBE_OK = "probe ok"
# Run on a board. LiteRT says on standard error, and nowhere else, that it could not count its
# cores; it then runs without XNNPACK.
BOARD_CHECK = (
    "import numpy, {modules}; "
    "from importlib.metadata import version as v; "
    "print(', '.join(n + ' ' + v(n) for n in {names!r}))"
)
MODULES = {
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}


def wanted_packages() -> list[str]:
    """Return the Debian packages that this machine must have."""
    lines = (line.partition("#")[0].strip() for line in PACKAGES.read_text("utf-8").splitlines())
    # root maps users by itself
    unneeded = {"uidmap"} if os.geteuid() == 0 else set()
    return [line for line in lines if line and line not in unneeded]


def missing_packages() -> list[str]:
    """Return those of the needed Debian packages that are not installed."""
    missing = []
    for package in wanted_packages():
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f=${db:Status-Status}", package],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout != "installed":
            missing.append(package)
    return missing


def probe(folder: Path) -> None:
    """Do in fresh namespaces what a board needs; raises OSError naming what is refused."""
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("probe", str(folder), "tmpfs")
    for name in ("lower", "upper", "work", "root", "proc", "binfmt"):
        (folder / name).mkdir()
    layers = ",".join(f"{kind}dir={folder / kind}" for kind in ("lower", "upper", "work"))
    kernel.mount("probe", str(folder / "root"), "overlay", 0, f"{layers},userxattr")
    kernel.mount("probe", str(folder / "proc"), "proc")
    kernel.unshare(kernel.CLONE_NEWNET)
    kernel.loopback_up()
    kernel.mount("probe", str(folder / "binfmt"), "binfmt_misc")
    # Seen once mounted at the usual place: a mount that succeeds and shows nothing.
    if not (folder / "binfmt/register").exists():
        raise OSError("mount binfmt_misc: the instance is blind")
    print(PROBE_OK, flush=True)


def namespace_problem() -> str | None:
    """Say why boards could not have their own namespaces and mounts, None when they can."""
    with tempfile.TemporaryDirectory(prefix="assay-farm-") as folder:
        asked = subprocess.run(
            [sys.executable, "-m", f"{__package__}.doctor", folder],
            capture_output=True,
            text=True,
            check=False,
            cwd=HERE.parent.parent,
            timeout=30,
        )
    if PROBE_OK in asked.stdout:
        return None
    lines = [line for line in asked.stderr.splitlines() if line.strip()] or ["no reason given"]
    reason = lines[0].removeprefix("error: ")
    return f"namespaces: {reason}"


def suite_problem(arch: str, suite: str) -> str | None:
    """Say why packages of a suite could not be had, None when they can."""
    with tempfile.TemporaryDirectory(prefix="assay-farm-") as folder:
        try:
            debian.Apt(Path(folder) / "apt", arch, suite)
        except FarmError as error:
            return str(error)
    return None


def problems(paths: Paths, definitions: Definitions, wanted: list[Board]) -> Iterator[str]:
    """Yield one line for everything that keeps the wanted units from running here."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        yield f"needs Linux on x86_64, this is {platform.system()} on {platform.machine()}"
        return
    if not shutil.which("dpkg-query"):
        yield "needs a Debian system: there is no dpkg"
        return
    if missing := missing_packages():
        yield f"Debian packages are missing: {' '.join(missing)}"
    if os.geteuid() != 0 and not binfmt.per_namespace():
        yield "without root, boards need Linux 6.7 or later (a binfmt_misc per user namespace)"
    elif reason := namespace_problem():
        yield reason
    unprepared = [board for board in wanted if not is_prepared(paths, board, definitions)]
    if unprepared:
        try:
            debian.mirror()
        except FarmError as error:
            yield str(error)
        else:
            # This host's own suite may be had where a newer one is not.
            for board in unprepared:
                if board.phone and (reason := suite_problem(board.arch, board.suite)):
                    yield f"{board.name}: {board.suite}: {reason}"
        existing = next(p for p in (paths.root, *paths.root.parents) if p.is_dir())
        if not os.access(existing, os.W_OK):
            yield f"{existing} is not writable"
        free = shutil.disk_usage(existing).free
        if free < NEEDED_BYTES:
            yield f"{existing}: {free >> 20} MiB free, {NEEDED_BYTES >> 20} needed to build"
    for board in wanted:
        if not boards.running(paths, board.name):
            try:
                boards.check_address_free(board)
            except FarmError as error:
                yield f"{board.name}: {error}"


def runtimes(arch: str) -> list[str]:
    """Return the distributions of runtimes that boards of an architecture have."""
    lines = rootfs.REQUIREMENTS[arch].read_text(encoding="utf-8").splitlines()
    present = {line.partition("==")[0] for line in lines}
    return [name for name in MODULES if name in present]


def phone_problem(board: Board) -> str | None:
    """Ask a phone what it is; print what it has, return what is wrong."""
    questions = "uname -m; id -un; getprop ro.product.cpu.abi; dumpsys battery | grep level"
    try:
        said = adbclient.shell(board.address, board.port, questions, timeout_s=60.0)
    except (FarmError, OSError) as error:
        return f"adb: {error}"
    lines = said.split("\n")
    if lines[:3] != ["aarch64", "shell", "arm64-v8a"] or "level" not in lines[3]:
        return f"says {' '.join(said.split())[:100]!r}"
    print(f"{board.name:<14} {lines[0]}, {lines[2]}, battery{lines[3].partition(':')[2]} %")
    return None


def board_problem(paths: Paths, board: Board) -> str | None:
    """Log into a board and import the runtimes; print what it has, return what is wrong."""
    if not boards.running(paths, board.name):
        return "not up"
    if board.phone:
        return phone_problem(board)
    names = runtimes(board.arch)
    check = BOARD_CHECK.format(modules=", ".join(MODULES[name] for name in names), names=names)
    try:
        asked = subprocess.run(
            boards.ssh(paths, board, f'uname -m; hostname; python3 -c "{check}"'),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return "no answer within 120 s"
    lines = asked.stdout.splitlines()
    if asked.returncode != 0 or len(lines) != 3:
        return (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
    machine, name, versions = lines
    if (machine, name) != (rootfs.MACHINE[board.arch], board.name):
        return f"says it is {name} ({machine})"
    if "Error in cpuinfo" in asked.stderr:
        return "LiteRT cannot count its cores and would run without XNNPACK"
    print(f"{board.name:<14} {machine}, {versions}")
    return None


def main(args: argparse.Namespace, paths: Paths, definitions: Definitions) -> int:
    """Print why the farm cannot run here, one line each; 0 when it can."""
    wanted = definitions.select(args.names)
    found = list(problems(paths, definitions, wanted))
    if args.boards and not found:
        for board in wanted:
            if reason := board_problem(paths, board):
                found.append(f"{board.name}: {reason}")
    for line in found:
        print(f"cannot: {line}", file=sys.stderr)
    if not found:
        print("the virtual farm can run here")
    return EXIT_CANNOT if found else 0


if __name__ == "__main__":
    # The probe's own process; it outlives its launcher only as long as its pipes are read.
    try:
        namespaces.start(
            lambda: probe(Path(sys.argv[1])),
            lambda pid: None,
            own_users=binfmt.per_namespace(),
        )
    except (FarmError, OSError) as problem:
        sys.exit(f"error: {problem}")
