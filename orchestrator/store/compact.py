"""Latency and telemetry: one small file per attempt while a run works, one Parquet file after.

Packing is three steps, each safe to repeat after a crash: write the Parquet artefact; mark the
files as packed in it (one transaction); delete the files. Readers (store/series.py) follow the
marks, so they give the same answer at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import aliased
from sqlmodel import col

from device_worker.scratch import scratch
from orchestrator.errors import DamageError
from orchestrator.store.db_errors import file_fault
from orchestrator.store.engine import insert_missing
from orchestrator.store.series import (
    LATENCY,
    TELEMETRY,
    files,
    latency_table,
    telemetry_table,
)
from orchestrator.store.tables import Artefact, Attempt, AttemptArtefact

if TYPE_CHECKING:
    from orchestrator.store.database import Store

ROWS = 1 << 20
"""Rows buffered for one Parquet row group."""


def compact(store: Store, run: str) -> int:
    """Pack the files of finished attempts that are not packed yet; how many were.

    A file that is damaged stays as it is, for whoever reads it to say so; one that is gone was
    packed and deleted by another coordinator meanwhile, or is for its reader, too. Raises
    InfraError E-DISK-FULL, E-STORE-*.
    """
    count = 0
    for role, table_of in ((LATENCY, latency_table), (TELEMETRY, telemetry_table)):
        loose = [(attempt, sha) for attempt, sha, packed in files(store, run, role) if not packed]
        if loose:
            count += _pack(store, role, loose, table_of)
    _sweep(store, run)
    return count


def _pack(
    store: Store,
    role: str,
    loose: Sequence[tuple[str, str]],
    table_of: Callable[[bytes, str], Any],
) -> int:
    folder = store.artefacts.folder
    try:
        with scratch("pack", str(folder)) as made:
            path = Path(made) / "pack"
            packed = _write(store, path, loose, table_of)
            if not packed:
                return 0
            blob = store.artefacts.put_file(path)
    except OSError as error:
        raise file_fault(error, folder) from error
    with store.database.write() as connection:
        store.artefacts.require([blob])
        insert_missing(connection, Artefact, vars(blob))
        return sum(
            connection.execute(
                update(AttemptArtefact)
                .where(
                    col(AttemptArtefact.attempt) == attempt,
                    col(AttemptArtefact.role) == role,
                    col(AttemptArtefact.packed).is_(None),
                )
                .values(packed=blob.sha256)
            ).rowcount
            for attempt in packed
        )


def _write(
    store: Store,
    path: Path,
    loose: Sequence[tuple[str, str]],
    table_of: Callable[[bytes, str], Any],
) -> list[str]:
    """Write the pack; the attempts whose rows are in it. No file where there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    packed: list[str] = []
    waiting: list[Any] = []
    writer: Any = None

    def flush() -> None:
        nonlocal writer
        table = pa.concat_tables(waiting)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        waiting.clear()

    try:
        for attempt, sha in loose:
            try:
                waiting.append(table_of(store.artefacts.read(sha), attempt))
            except DamageError:
                continue
            packed.append(attempt)
            if sum(table.num_rows for table in waiting) >= ROWS:
                flush()
        if waiting:
            flush()
    finally:
        if writer is not None:
            writer.close()
    return packed


def _sweep(store: Store, run: str) -> None:
    """Delete packed files that no attempt of any run needs loose.

    Inside a write transaction, so that no attempt can come to refer to one meanwhile.
    """
    other = aliased(AttemptArtefact)
    needed = exists().where(
        other.sha256 == col(AttemptArtefact.sha256),  # type: ignore[arg-type]  # SQL, not bool
        other.packed.is_(None),  # type: ignore[union-attr]  # a column, not its value
    )
    with store.database.write() as connection:
        done = connection.execute(
            select(col(AttemptArtefact.sha256))
            .join(Attempt, col(Attempt.id) == col(AttemptArtefact.attempt))
            .where(col(Attempt.run) == run, col(AttemptArtefact.packed).is_not(None), ~needed)
            .distinct()
        )
        for sha in done.scalars():
            store.artefacts.remove(sha)
