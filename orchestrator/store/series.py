"""Reading latency and telemetry back, attempt by attempt, packed (store/compact.py) or not yet.

In the files, latency has the columns sample int32 and ns int64; telemetry t_s float64 (seconds),
sensor, and value float64 or null; packs have ``attempt`` in front. Sensors are named as by the
worker (device_worker.telemetry.parsers): ``temp/cpu`` in degrees Celsius, ``freq/cpu0`` in kHz,
``flags/throttled``, ``mem/free`` in bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlmodel import col

from orchestrator.errors import DamageError, InfraError
from orchestrator.store.arrays import array_of, malformed
from orchestrator.store.artefacts import MISSING
from orchestrator.store.records import Reading
from orchestrator.store.tables import Attempt, AttemptArtefact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from orchestrator.store.database import Store

LATENCY, TELEMETRY = "latency_ns", "telemetry"
COLUMNS = {LATENCY: ("ns",), TELEMETRY: Reading._fields}
"""What is read; the rows of an attempt's latency are its samples in order."""
HELD = 256 << 20
"""Bytes of a pack that are held in memory.

Attempts are asked for in plan order, lie in order of their claim, and share row groups.
"""


_DEEP_OR_HUGE = (RecursionError, OverflowError)
"""What valid JSON may raise: nested too deeply, a number that no float holds."""


class Series:
    """The files of one role of a run's finished attempts. Not thread-safe."""

    def __init__(self, store: Store, run: str, role: str) -> None:
        self._store, self._run, self._role = store, run, role
        self._artefacts = store.artefacts
        self._table_of = {LATENCY: latency_table, TELEMETRY: telemetry_table}[role]
        self._files = self._listed()
        self._packs: dict[str, _Pack | InfraError] = {}

    @property
    def attempts(self) -> tuple[str, ...]:
        """Those that have such a file, in order of their claim."""
        return tuple(self._files)

    def table(self, attempt: str) -> Any:
        """The attempt's rows as a pyarrow.Table of the role's COLUMNS.

        KeyError for one that is not in ``attempts``. Raises InfraError E-ARTEFACT-MISSING,
        E-ARTEFACT-CORRUPT, E-ARTEFACT-FORMAT.
        """
        if self._files[attempt][1] is None:
            try:
                data = self._artefacts.read(self._files[attempt][0])
                return self._table_of(data, attempt).select(COLUMNS[self._role])
            except InfraError as error:
                self._files = self._listed()
                # Deleted because it was packed since these were listed: it is in the pack.
                if error.id != MISSING or self._files[attempt][1] is None:
                    raise
        packed = self._files[attempt][1]
        assert packed is not None
        if packed not in self._packs:
            self._packs[packed] = self._opened(packed)
        pack = self._packs[packed]
        if isinstance(pack, InfraError):
            raise pack
        return pack.table(attempt)

    def _listed(self) -> dict[str, tuple[str, str | None]]:
        listed = files(self._store, self._run, self._role)
        return {attempt: (sha, packed) for attempt, sha, packed in listed}

    def _opened(self, packed: str) -> _Pack | InfraError:
        import pyarrow as pa

        try:
            self._artefacts.verify(packed)
            return _Pack(self._artefacts.path(packed), COLUMNS[self._role])
        except InfraError as error:
            return error
        except (pa.ArrowException, KeyError) as error:
            return malformed(f"the pack {packed} of {self._role}", str(error))


class _Pack:
    """One Parquet file: where each attempt's rows are, and the row groups read last."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, read_dictionary=["attempt"])
        self._columns = list(columns)
        self._places: dict[str, list[tuple[int, int, int]]] = {}
        self._groups: dict[int, Any] = {}
        for group in range(self._file.num_row_groups):
            column = self._file.read_row_group(group, columns=["attempt"])["attempt"]
            start = 0
            for chunk in column.chunks:
                names, runs, begin = chunk.dictionary, pc.run_end_encode(chunk.indices), 0
                for i, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
                    place = (group, start + begin, end - begin)
                    self._places.setdefault(names[i].as_py(), []).append(place)
                    begin = end
                start += len(chunk)

    def table(self, attempt: str) -> Any:
        import pyarrow as pa

        places = self._places.get(attempt)
        if places is None:  # an attempt without a single row
            return self._file.schema_arrow.empty_table().select(self._columns)
        return pa.concat_tables([self._group(g).slice(at, n) for g, at, n in places])

    def _group(self, number: int) -> Any:
        if number not in self._groups:
            while sum(group.nbytes for group in self._groups.values()) > HELD:
                del self._groups[next(iter(self._groups))]
            self._groups[number] = self._file.read_row_group(number, columns=self._columns)
        return self._groups[number]


Damage = dict[str, DamageError]


def latency(store: Store, run: str, damage: Damage | None = None) -> dict[str, NDArray[np.int64]]:
    """Attempt -> ns of each sample, [samples]. Raises as ``Series.table`` without ``damage``."""
    import numpy as np

    return {
        attempt: np.asarray(table["ns"].to_numpy(), dtype=np.int64)
        for attempt, table in _tables(Series(store, run, LATENCY), damage)
    }


def telemetry(store: Store, run: str, damage: Damage | None = None) -> dict[str, list[Reading]]:
    """Attempt -> readings in order of time. Raises as ``latency``."""
    tables = _tables(Series(store, run, TELEMETRY), damage)
    return {attempt: _read(table) for attempt, table in tables}


def _tables(series: Series, damage: Damage | None) -> Iterator[tuple[str, Any]]:
    for attempt in series.attempts:
        try:
            yield attempt, series.table(attempt)
        except DamageError as error:
            if damage is None:
                raise
            damage[attempt] = error


def _read(table: Any) -> list[Reading]:
    columns = (table[name].to_pylist() for name in Reading._fields)
    return [Reading(*values) for values in zip(*columns, strict=True)]


def files(store: Store, run: str, role: str) -> list[tuple[str, str, str | None]]:
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


def latency_table(data: bytes, attempt: str) -> Any:
    import numpy as np
    import pyarrow as pa

    ns = array_of(data, _named(attempt, LATENCY))
    if ns.dtype != np.int64 or ns.ndim != 1:
        why = f"{ns.dtype}{list(ns.shape)} is not int64[samples]"
        raise malformed(_named(attempt, LATENCY), why)
    return pa.table(
        {
            "attempt": pa.array([attempt] * len(ns), pa.string()),
            "sample": np.arange(len(ns), dtype=np.int32),
            "ns": ns,
        }
    )


def telemetry_table(data: bytes, attempt: str) -> Any:
    import pyarrow as pa

    try:
        rows = [reading for line in data.splitlines() for reading in _readings(json.loads(line))]
    except (ValueError, KeyError, TypeError, AttributeError, *_DEEP_OR_HUGE) as error:
        why = f"{type(error).__name__}: {error}"
        raise malformed(_named(attempt, TELEMETRY), why) from error
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
    t_s = _finite(line["t_s"])
    for name, value in line["values"].items():
        yield Reading(t_s, name, None if value is None else _finite(value))


def _finite(value: Any) -> float:
    """ValueError for NaN and infinity, which no document can show."""
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value} is no reading")
    return found


def _named(attempt: str, role: str) -> str:
    return f"{role} of attempt {attempt}"
