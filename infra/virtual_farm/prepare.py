"""Building what units share and is not there yet, side by side; removing what nothing uses."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from . import phonebase, rootfs
from .config import Board, Definitions, FarmError, Paths


def base_path(paths: Paths, board: Board) -> Path:
    """Return where the shared system of a unit belongs."""
    of_kind = phonebase.phone_base_path if board.phone else rootfs.base_path
    return of_kind(paths, board.arch, board.suite)


def is_prepared(paths: Paths, board: Board, definitions: Definitions) -> bool:
    """Tell whether all that a unit shares with others is there."""
    qemu = definitions.qemus[board.qemu_version]
    return base_path(paths, board).is_dir() and rootfs.qemu_folder(paths, qemu).is_dir()


def remove_leftovers(paths: Paths) -> None:
    """Remove what an interrupted build left behind (the caller holds the farm's lock)."""
    for leftover in paths.root.glob("tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_outdated(paths: Paths, definitions: Definitions) -> None:
    """Remove what was built from other ingredients (no unit may be up: it might use it)."""
    current = {base_path(paths, board) for board in definitions.boards.values()}
    current |= {rootfs.qemu_folder(paths, qemu) for qemu in definitions.qemus.values()}
    for made in {*paths.root.glob("base-*"), *paths.root.glob("qemu-*")} - current:
        shutil.rmtree(made, ignore_errors=True)


def prepare(paths: Paths, boards: Iterable[Board], definitions: Definitions) -> dict[str, str]:
    """Build what the units share; return why not, by name, of those that it failed for."""
    boards = list(boards)
    remove_leftovers(paths)
    with ThreadPoolExecutor() as pool:
        # Emulators first: a phone's base needs its own, and waits for it in its place.
        qemus = {
            version: pool.submit(
                _timed, f"QEMU {version}", functools.partial(rootfs.ensure_qemu, paths, qemu)
            )
            for version, qemu in definitions.qemus.items()
            if any(board.qemu_version == version for board in boards)
        }
        bases: dict[Path, Future[None]] = {}
        for board in boards:
            path = base_path(paths, board)
            if path in bases:
                continue
            build = functools.partial(rootfs.ensure_base, paths, board.arch, board.suite)
            if board.phone:
                build = functools.partial(_phone_base, paths, board, definitions, qemus)
            kind = f"{board.arch} {'phone' if board.phone else 'base'}"
            bases[path] = pool.submit(_timed, kind, build)
    reasons: dict[str, str] = {}
    for board in boards:
        for step in (qemus[board.qemu_version], bases[base_path(paths, board)]):
            try:
                step.result()
            except FarmError as error:
                reasons.setdefault(board.name, str(error))
    return reasons


def _phone_base(
    paths: Paths, board: Board, definitions: Definitions, qemus: dict[str, Future[None]]
) -> bool:
    qemus[board.qemu_version].result()
    qemu = definitions.qemus[board.qemu_version]
    return phonebase.ensure_phone_base(paths, board.arch, board.suite, qemu)


def _timed(what: str, build: Callable[[], bool]) -> None:
    begun = time.monotonic()
    if build():
        print(f"built {what} in {time.monotonic() - begun:.1f} s", flush=True)
