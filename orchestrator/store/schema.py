"""Which schema a database has, and bringing it up to date.

``HISTORY`` repeats the revision ids below migrations/versions (a test compares them), because
loading Alembic costs more than everything else that ``assay status`` does.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import InfraError

HISTORY: tuple[str, ...] = ("0001", "0002", "0003", "0004", "0005")
HEAD = HISTORY[-1]

MIGRATIONS = Path(__file__).parent / "migrations"


def check(revision: str, path: Path) -> None:
    """Raises InfraError E-STORE-OLD or E-STORE-NEW unless ``revision`` is this program's."""
    if revision == HEAD:
        return
    if revision in HISTORY:
        raise InfraError(
            "E-STORE-OLD",
            f"the store has schema {revision}, this Assay needs {HEAD}",
            where=str(path),
            fix="run: assay store upgrade",
            retryable=False,
        )
    raise InfraError(
        "E-STORE-NEW",
        f"the store has schema {revision}, made by a newer Assay; this one knows up to {HEAD}",
        where=str(path),
        fix="upgrade Assay on this machine",
        retryable=False,
    )


def foreign(path: Path) -> InfraError:
    return InfraError(
        "E-STORE-CORRUPT",
        "the database has tables, but none of them is Assay's",
        where=str(path),
        fix="move the file away or choose another folder",
        retryable=False,
    )
