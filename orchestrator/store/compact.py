"""Latency and telemetry: one small file per attempt while a run works, one Parquet file after.

Packing is three steps, each safe to repeat after a crash: write the Parquet artefact; mark the
files as packed in it (one transaction); delete the files. Readers follow the marks, so they give
the same answer at any moment.

Latency columns: attempt, sample int32, ns int64. Telemetry columns: attempt, t_s float64 (seconds),
sensor, value float64 or null. Sensors are named as by the worker (device_worker.telemetry.parsers):
``temp/cpu`` in degrees Celsius, ``freq/cpu0`` in kHz, ``flags/throttled``, ``mem/free`` in bytes.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import aliased
from sqlmodel import col

from orchestrator.errors import InfraError
from orchestrator.store.engine import insert_missing
from orchestrator.store.faults import file_fault
from orchestrator.store.records import Reading
from orchestrator.store.tables import Artefact, Attempt, AttemptArtefact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.store.database import Store

LATENCY, TELEMETRY = "latency_ns", "telemetry"
ROWS = 1 << 20
"""Rows buffered for one Parquet row group."""


def compact(store: Store, run: str) -> int:
    """Pack the files of finished attempts that are not packed yet; how many were.

    Raises InfraError E-ARTEFACT-MISSING, E-ARTEFACT-CORRUPT, E-ARTEFACT-FORMAT, E-DISK-FULL.
    """
    count = 0
    for role, table_of in ((LATENCY, _latency_table), (TELEMETRY, _telemetry_table)):
        loose = [(attempt, sha) for attempt, sha, packed in _files(store, run, role) if not packed]
        if loose:
            count += _pack(store, role, loose, table_of)
    _sweep(store, run)
    return count


def latency(store: Store, run: str) -> dict[str, NDArray[np.int64]]:
    """Attempt -> ns of each sample, [samples]. Raises as ``compact``."""
    import numpy as np

    found: dict[str, NDArray[np.int64]] = {}
    for attempt, table in _tables(store, run, LATENCY, _latency_table):
        found[attempt] = np.asarray(table["ns"].to_numpy(), dtype=np.int64)
    return found


def telemetry(store: Store, run: str) -> dict[str, list[Reading]]:
    """Attempt -> readings in order of time. Raises as ``compact``."""
    return {
        attempt: [
            Reading(*values)
            for values in zip(*(table[name].to_pylist() for name in Reading._fields), strict=True)
        ]
        for attempt, table in _tables(store, run, TELEMETRY, _telemetry_table)
    }


def _files(store: Store, run: str, role: str) -> list[tuple[str, str, str | None]]:
    """(attempt, sha256, packed) of the run's finished attempts, in order of their claim."""
    with store.database.read() as connection:
        rows = connection.execute(
            select(
                col(AttemptArtefact.attempt),
                col(AttemptArtefact.sha256),
                col(AttemptArtefact.packed),
            )
            .join(Attempt, col(Attempt.id) == col(AttemptArtefact.attempt))
            .where(col(Attempt.run) == run, col(AttemptArtefact.role) == role)
            .order_by(col(Attempt.claimed), col(Attempt.id))
        )
        return [(row.attempt, row.sha256, row.packed) for row in rows]


def _tables(
    store: Store, run: str, role: str, table_of: Callable[[bytes, str], Any]
) -> Iterator[tuple[str, Any]]:
    """Each attempt with its rows, from wherever they are."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    packs: dict[str, dict[str, Any]] = {}
    for attempt, sha, packed in _files(store, run, role):
        if packed is None:
            yield attempt, table_of(store.artefacts.read(sha), attempt)
            continue
        if packed not in packs:
            whole = pq.read_table(io.BytesIO(store.artefacts.read(packed)))
            packs[packed] = {"": whole.slice(0, 0)}
            names = pc.run_end_encode(whole["attempt"].combine_chunks().cast(pa.string()))
            start = 0
            for name, end in zip(names.values.to_pylist(), names.run_ends.to_pylist(), strict=True):
                packs[packed][name] = whole.slice(start, end - start)
                start = end
        yield attempt, packs[packed].get(attempt, packs[packed][""])


def _pack(
    store: Store,
    role: str,
    loose: Sequence[tuple[str, str]],
    table_of: Callable[[bytes, str], Any],
) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = store.artefacts.folder
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as scratch:
            path = Path(scratch) / "pack"
            writer: Any = None
            waiting: list[Any] = []
            try:
                for n, (attempt, sha) in enumerate(loose, 1):
                    waiting.append(table_of(store.artefacts.read(sha), attempt))
                    if n == len(loose) or sum(table.num_rows for table in waiting) >= ROWS:
                        table = pa.concat_tables(waiting)
                        writer = writer or pq.ParquetWriter(path, table.schema)
                        writer.write_table(table)
                        waiting = []
            finally:
                if writer is not None:
                    writer.close()
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
            for attempt, _ in loose
        )


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


def _latency_table(data: bytes, attempt: str) -> Any:
    import numpy as np
    import pyarrow as pa

    try:
        ns = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise _malformed(attempt, LATENCY, str(error)) from error
    if ns.dtype != np.int64 or ns.ndim != 1:
        raise _malformed(attempt, LATENCY, f"{ns.dtype}{list(ns.shape)} is not int64[samples]")
    return pa.table(
        {
            "attempt": pa.array([attempt] * len(ns), pa.string()),
            "sample": np.arange(len(ns), dtype=np.int32),
            "ns": ns,
        }
    )


def _telemetry_table(data: bytes, attempt: str) -> Any:
    import pyarrow as pa

    try:
        rows = [reading for line in data.splitlines() for reading in _readings(json.loads(line))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _malformed(attempt, TELEMETRY, f"{type(error).__name__}: {error}") from error
    return pa.table(
        {
            "attempt": pa.array([attempt] * len(rows), pa.string()),
            "t_s": pa.array([row.t_s for row in rows], pa.float64()),
            "sensor": pa.array([row.sensor for row in rows], pa.string()),
            "value": pa.array([row.value for row in rows], pa.float64()),
        }
    )


def _readings(line: dict[str, Any]) -> Iterator[Reading]:
    """One line of the worker's telemetry file: t_s and values by sensor."""
    t_s = float(line["t_s"])
    for name, value in line["values"].items():
        yield Reading(t_s, name, None if value is None else float(value))


def _malformed(attempt: str, role: str, why: str) -> InfraError:
    return InfraError(
        "E-ARTEFACT-FORMAT",
        f"{role} of attempt {attempt} has not the agreed form: {why}",
        mend="the worker on that device wrote it; run the cell again",
        retryable=False,
    )
