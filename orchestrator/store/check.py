"""Check a store: every file against the hash in its name, every row against its digest.

And name whatever needs what is damaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.store.database import Store
from orchestrator.store.db_errors import file_fault
from orchestrator.store.rows import Rows, check_rows
from orchestrator.store.uses import needs, uses

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
    rows: Rows


def check(store: Store, *, quarantine: bool = False) -> Checked:
    """Read every row and every artefact.

    ``quarantine`` moves spoilt files away, so that a file of the same content can take their place.
    Raises InfraError E-STORE-*, E-DISK-*.
    """
    rows = check_rows(store)
    try:
        needed = needs(uses(store))
    except InfraError:
        if not rows.damaged:
            raise
        needed = {}  # the rows that say so cannot be read, which ``rows`` tells
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
    unused = len(there.keys() - needed.keys())
    return Checked(len(there), size, unused, tuple(damaged), rows)


def _move(path: Path, to: Path) -> Path:
    try:
        to.parent.mkdir(exist_ok=True)
        return path.replace(to)
    except OSError as error:
        raise file_fault(error, to) from error
