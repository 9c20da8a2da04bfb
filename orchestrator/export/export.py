"""Store → columns: the tables of one or more runs as Parquet files, read only.

What cannot be read is left out, said once, and kept in the table ``problems``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.errors import AssayError, DamageError, InfraError
from orchestrator.export import parquet
from orchestrator.export.rows import Row, attempt_row, cell_row, pair_rows, run_row, verdict_rows
from orchestrator.export.samples import Parent, parent, sample_rows, telemetry_rows
from orchestrator.export.tables import TABLES
from orchestrator.matrix.environment import emulated
from orchestrator.runs.run import Run, Shared
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.store.database import Store
from orchestrator.store.digests import damaged, taken_apart
from orchestrator.store.records import AttemptInfo, CellInfo, Json, RunInfo
from orchestrator.store.series import LATENCY, TELEMETRY, Series
from orchestrator.variance.observation import Truth
from orchestrator.variance.tasks import TaskError

Notice = Callable[[str], None]


class Export:
    """``problems``: rows of that table so far. ``notice`` is told of each fault once."""

    def __init__(self, store: Store, runs: Sequence[RunInfo], notice: Notice) -> None:
        self.problems: list[Row] = []
        self._notice, self._noticed = notice, set[str]()
        shared = Shared(store)
        self._runs = [_Run(store, run, shared, self._problem) for run in runs]

    def write(self, folder: Path, names: Collection[str] = tuple(TABLES)) -> dict[str, int]:
        """``NAME.parquet`` for each of these tables; name -> rows. Raises OSError.

        ``problems`` is complete only when all tables are written.
        """
        return {
            name: parquet.write(folder / f"{name}.parquet", table, self._batches(name))
            for name, table in TABLES.items()
            if name in names
        }

    def _batches(self, name: str) -> Iterator[pa.Table]:
        if name == "problems":
            yield pa.Table.from_pylist(self.problems, TABLES[name].schema)
            return
        for run in self._runs:
            try:
                yield from getattr(run, name)()
            except AssayError as error:
                self._problem(run.info.id, name, None, error)

    def _problem(self, run: str, part: str, subject: str | None, error: AssayError) -> None:
        text = str(error)
        self.problems.append(
            {"run": run, "part": part, "subject": subject, "error_id": error.id, "error": text}
        )
        if text not in self._noticed:
            self._noticed.add(text)
            self._notice(f"left out of {part}: {subject or run}: {text}")


Problem = Callable[[str, str, str | None, AssayError], None]


class _Run:
    """One run; a method per table, of the table's name, gives its rows in batches."""

    def __init__(self, store: Store, info: RunInfo, shared: Shared, problem: Problem) -> None:
        self.info, self._store, self._problem = info, store, problem
        self._shared, self._run = shared, Run(store, info, shared=shared)
        self._environments: dict[str, Json] = {}

    def runs(self) -> Iterator[pa.Table]:
        yield _table("runs", [run_row(self.info, self._document)])

    def cells(self) -> Iterator[pa.Table]:
        yield _table("cells", map(cell_row, self._cells.values()))

    def attempts(self) -> Iterator[pa.Table]:
        rows = (row for a in self._run.attempts.values() if (row := self._attempt_row(a)))
        yield _table("attempts", rows)

    def rows(self) -> Iterator[pa.Table]:
        yield _table("rows", verdict_rows(self.info.id, self._judged("rows")))

    def pairs(self) -> Iterator[pa.Table]:
        yield _table("pairs", pair_rows(self.info.id, self._judged("pairs")))

    def samples(self) -> Iterator[pa.Table]:
        from orchestrator.runs.observations import observations

        run, parents = self.info.id, dict[tuple[str, str], Parent | None]()
        latency = Series(self._store, run, LATENCY)

        def fault(subject: str | None, error: AssayError) -> None:
            self._problem(run, "samples", subject, error)

        asked = Run(self._store, self.info, shared=self._shared, told=fault)
        for seen, truth in observations(asked):
            if not seen.outputs or seen.attempt is None:
                continue
            key = seen.row.model, seen.row.inputs
            if key not in parents:
                parents[key] = self._parent(key, truth)
            try:
                hashes = self._hashes(seen.attempt)
                ns = self._latency(latency, seen.attempt)
                yield sample_rows(run, seen, truth, parents[key], hashes, ns)
            except TaskError as error:
                fault(seen.attempt, error)

    def telemetry(self) -> Iterator[pa.Table]:
        series = Series(self._store, self.info.id, TELEMETRY)
        for id in series.attempts:
            attempt = self._run.attempts[id]
            constants = {
                "run": self.info.id,
                "attempt": id,
                "device": attempt.device,
                "emulated": self._emulated(attempt),
            }
            try:
                yield telemetry_rows(series.table(id), constants)
            except InfraError as error:
                self._problem(self.info.id, "telemetry", id, error)

    def _parent(self, key: tuple[str, str], truth: Truth) -> Parent | None:
        try:
            return parent(truth)
        except TaskError as error:
            self._problem(self.info.id, "samples", f"FP32 parent of {key[0]} on {key[1]}", error)
            return None

    def _hashes(self, attempt: str) -> NDArray[np.uint8] | None:
        """[samples, 32], None where the attempt has none or they cannot be read."""
        from orchestrator.runs.observations import sample_hashes

        if "sample_hashes" not in self._run.attempts[attempt].artefacts:
            return None
        try:
            return sample_hashes(self._store, self._run.attempts[attempt])
        except InfraError as error:
            self._problem(self.info.id, "samples", attempt, error)
            return None

    def _latency(self, series: Series, attempt: str) -> NDArray[np.int64] | None:
        if attempt not in series.attempts:
            return None
        try:
            found: NDArray[np.int64] = series.table(attempt)["ns"].to_numpy()
        except InfraError as error:
            self._problem(self.info.id, "samples", attempt, error)
            return None
        return found

    def _attempt_row(self, attempt: AttemptInfo) -> Row | None:
        """None where its cell is gone or its result is not of its form."""
        cell, frozen = self._cells.get(attempt.cell), self._frozen
        try:
            if cell is None:
                raise attempt.damage or damaged(f"attempt {attempt.id}", "its cell is not there")
            unit = attempt.device or cell.unit or cell.slot
            with taken_apart(attempt):
                return attempt_row(
                    attempt,
                    cell,
                    self._environment(attempt),
                    device_class=frozen.class_of(cell.slot, unit) if frozen else None,
                    emulated=self._emulated(attempt),
                )
        except DamageError as error:
            self._problem(self.info.id, "attempts", attempt.id, error)
            return None

    def _emulated(self, attempt: AttemptInfo) -> bool | None:
        """None for an attempt that no unit took."""
        if attempt.device is None:
            return None
        device = self._run.devices.get(attempt.device)
        return emulated(self._environment(attempt)) or (device is not None and device.emulated)

    def _environment(self, attempt: AttemptInfo) -> Json:
        key = attempt.environment
        if key is None:
            return {}
        if key not in self._environments:
            self._environments[key] = {}
            try:
                self._environments[key] = self._run.environment(attempt)
            except DamageError as error:
                self._problem(self.info.id, "attempts", attempt.id, error)
        return self._environments[key]

    def _judged(self, part: str) -> Json:
        if self._document is None:
            raise InfraError(
                "E-EXPORT-VERDICT",
                "the run has no verdict yet",
                fix=f"assay signoff {self.info.id}",
                retryable=False,
            )
        return self._document

    @cached_property
    def _document(self) -> Json | None:
        try:
            return self._store.verdict(self.info.id)
        except DamageError as error:
            self._problem(self.info.id, "rows", None, error)
            return None

    @cached_property
    def _cells(self) -> Mapping[str, CellInfo]:
        return {c.id: c for c in self._run.cells}

    @cached_property
    def _frozen(self) -> FrozenRun | None:
        try:
            return self._run.frozen
        except AssayError as error:
            self._problem(self.info.id, "attempts", None, error)
            return None


def _table(name: str, found: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(found), TABLES[name].schema)
