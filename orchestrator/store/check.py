"""Every file of a store against the hash in its name, and who needs those that are damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from orchestrator.errors import InfraError
from orchestrator.store.database import Store
from orchestrator.store.faults import file_fault
from orchestrator.store.tables import Attempt, AttemptArtefact, Baseline, Run

QUARANTINE = "quarantine"
"""Folder beside the artefacts; nothing reads it."""


@dataclass(frozen=True)
class Damaged:
    """A missing or spoilt file; ``needed_by``: what of which run; ``moved``: where to."""

    sha256: str
    error: InfraError
    needed_by: tuple[str, ...]
    moved: Path | None = None


@dataclass(frozen=True)
class Checked:
    """``files`` that are there, ``unused`` of them needed by nothing; ``bytes`` of good ones."""

    files: int
    bytes: int
    unused: int
    damaged: tuple[Damaged, ...]


def check(store: Store, *, quarantine: bool = False) -> Checked:
    """Read every artefact. ``quarantine`` moves spoilt files away, so that a file of the same

    content can take their place. Raises InfraError E-STORE-*, E-DISK-*.
    """
    needed = _needed(store)
    artefacts = store.artefacts
    there = {path.name: path for path in artefacts.folder.glob("[0-9a-f][0-9a-f]/*")}
    damaged, size = [], 0
    for sha256 in sorted({*there, *needed}):
        try:
            artefacts.verify(sha256)
        except InfraError as error:
            path, moved = there.get(sha256), None
            if path is not None and quarantine:
                moved = _move(path, artefacts.folder.parent / QUARANTINE / sha256)
            damaged.append(Damaged(sha256, error, needed.get(sha256, ()), moved))
        else:
            size += there[sha256].stat().st_size if sha256 in there else 0
    return Checked(len(there), size, len(there.keys() - needed.keys()), tuple(damaged))


def _move(path: Path, to: Path) -> Path:
    try:
        to.parent.mkdir(exist_ok=True)
        return path.replace(to)
    except OSError as error:
        raise file_fault(error, to) from error


def _needed(store: Store) -> dict[str, tuple[str, ...]]:
    """sha256 -> what needs it. A small file that was packed is not needed, its pack is."""
    found: dict[str, dict[str, int]] = {}
    for sha256, what in _uses(store):
        uses = found.setdefault(sha256, {})
        uses[what] = uses.get(what, 0) + 1
    return {
        sha256: tuple(what if n == 1 else f"{what} ({n} attempts)" for what, n in uses.items())
        for sha256, uses in found.items()
    }


def _uses(store: Store) -> Iterator[tuple[str, str]]:
    with store.database.read() as connection:
        for sha256, packed, role, run in connection.execute(
            select(
                col(AttemptArtefact.sha256),
                col(AttemptArtefact.packed),
                col(AttemptArtefact.role),
                col(Attempt.run),
            ).join(Attempt, col(Attempt.id) == col(AttemptArtefact.attempt))
        ):
            yield packed or sha256, f"{role} of {run}"
        for run, frozen in connection.execute(select(col(Run.id), col(Run.frozen))):
            for sha256, what in _staged(frozen.get("staging") or {}):
                yield sha256, f"{what} of {run}"
        for data in connection.execute(select(col(Baseline.data))).scalars():
            yield from ((sha256, "an FP32 baseline") for sha256 in data.get("outputs") or ())


def _staged(staging: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The files of orchestrator/staged.py, read as plain data: a damaged record hides no file."""
    for part in ("models", "tensors", "bundles"):
        for name, told in (staging.get(part) or {}).items():
            yield told["sha256"], f"{part[:-1]} {name}"
    for name, told in (staging.get("sets") or {}).items():
        for sha256 in (told["x"], told["labels"], *(told.get("slices") or {}).values()):
            if sha256 is not None:
                yield sha256, f"input set {name}"
    for name, sha256 in (staging.get("spots") or {}).items():
        yield sha256, f"samples drawn for {name}"
