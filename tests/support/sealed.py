"""Rows that were edited and sealed again: what a faulty program, not a flipped bit, leaves."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, create_engine, text

from orchestrator.store.digests import digest_of
from orchestrator.store.reader import ATTEMPT
from orchestrator.store.records import Blob, content_of


def reseal(connection: Connection, attempt: str) -> None:
    """Give an edited attempt the content ID and the digest of what it now says."""
    (row,) = connection.execute(text(f"{ATTEMPT} WHERE id = :id"), {"id": attempt}).mappings()
    files = connection.execute(
        text(
            "SELECT x.role, x.sha256, f.size FROM attempt_artefact x"
            " JOIN artefact f ON f.sha256 = x.sha256 WHERE x.attempt = :id"
        ),
        {"id": attempt},
    )
    artefacts = {role: Blob(sha256, size) for role, sha256, size in files}
    content = content_of(artefacts)
    digest = digest_of("attempt", {**row, "content": content, "artefacts": artefacts})
    connection.execute(
        text("UPDATE attempt SET content = :content, digest = :digest WHERE id = :id"),
        {"content": content, "digest": digest, "id": attempt},
    )


def reseal_rows(store: Path, table: str, where: str = "true") -> None:
    """The same for edited rows of another table; ``where``: SQL."""
    engine = create_engine(f"sqlite:///{store / 'assay.db'}")
    with engine.begin() as connection:
        rows = connection.execute(text(f'SELECT rowid AS number, * FROM "{table}" WHERE {where}'))
        for row in rows.mappings().all():
            columns = {name: value for name, value in row.items() if name != "number"}
            connection.execute(
                text(f'UPDATE "{table}" SET digest = :digest WHERE rowid = :number'),
                {"digest": digest_of(table, columns), "number": row["number"]},
            )
    engine.dispose()
