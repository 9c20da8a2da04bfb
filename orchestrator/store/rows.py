"""Every row of a database against its digest and its neighbours: what no single reading shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from orchestrator.errors import AssayError, DamageError, InfraError
from orchestrator.queue.states import AttemptState, CellState, RunState
from orchestrator.store.database import Store
from orchestrator.store.digests import COLUMNS, damage_of, damaged
from orchestrator.store.reader import ATTEMPT, as_object, attempt_info, cell_info
from orchestrator.store.records import AttemptInfo, BaselineKey, Blob, CellInfo, sha256_of
from orchestrator.store.sqlite import faults

Row = Mapping[str, Any]
SHOWN = 20
"""Faults of one kind that are listed; the others are counted."""


@dataclass(frozen=True)
class Rows:
    """``checked`` rows; ``damaged``: what -> why; ``unwitnessed`` attempts cannot be checked."""

    checked: int
    damaged: Mapping[str, AssayError]
    unwitnessed: int


def check_rows(store: Store) -> Rows:
    """The database's own check of itself, then each row of each table. Never stops at a fault."""
    found = _Rows(store)
    for part in (found.database, found.attempts, *found.tables()):
        try:
            part()
        except InfraError as error:
            found.damaged.setdefault("the database", error)
    return Rows(found.checked, found.damaged, found.unwitnessed)


def database_damage(store: Store) -> AssayError | None:
    """What the database itself says is wrong with its file or between its tables, if anything."""
    found = _Rows(store)
    try:
        found.database()
    except InfraError as error:
        return error
    return next(iter(found.damaged.values()), None)


def counted(cell: CellInfo, attempts: Mapping[str, AttemptInfo]) -> AttemptInfo | None:
    """The attempt whose outcome is the cell's; None while it is not done.

    Raises DamageError E-STORE-DAMAGED where cell and attempt are not what was written.
    """
    if cell.damage:
        raise cell.damage
    if cell.state is not CellState.DONE:
        return None
    attempt = attempts.get(cell.attempt or "")
    if attempt is None:
        raise damaged(f"cell {cell.id}", f"its attempt {cell.attempt} is not there")
    if attempt.damage:
        raise attempt.damage
    if (attempt.cell, attempt.state) != (cell.id, cell.outcome):
        raise damaged(f"cell {cell.id}", f"attempt {attempt.id} did not end it so")
    return attempt


class _Rows:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._attempts: dict[str, AttemptInfo] = {}
        self.checked = self.unwitnessed = 0
        self.damaged: dict[str, AssayError] = {}

    def database(self) -> None:
        with self._store.database.read() as connection:
            if connection.dialect.name != "sqlite":
                return
            for n, why in enumerate(faults(connection.exec_driver_sql)):
                if n < SHOWN:
                    self.damaged[f"the database ({n + 1})"] = DamageError(
                        "E-STORE-CORRUPT",
                        f"the database says of itself: {why}",
                        where=str(self._store.database.path),
                        fix="restore it from a backup",
                    )

    def attempts(self) -> None:
        files: dict[str, dict[str, Blob]] = {}
        for row in self._rows(
            "SELECT x.attempt, x.role, x.sha256, f.size FROM attempt_artefact x"
            " JOIN artefact f ON f.sha256 = x.sha256"
        ):
            files.setdefault(row["attempt"], {})[row["role"]] = Blob(row["sha256"], row["size"])
        for row in self._rows(ATTEMPT):
            self.checked += 1
            info = attempt_info(row, files.get(row["id"], {}))
            self._attempts[info.id] = info
            if info.damage:
                self.damaged[f"attempt {info.id}"] = info.damage
            elif info.state.final and not info.witnessed:
                self.unwitnessed += 1

    def tables(self) -> Iterator[Callable[[], None]]:
        """One check for each other table."""
        also: dict[str, Callable[[Row], None]] = {
            "cell": self._cell,
            "run": lambda row: _state(RunState, row["state"]),
            "environment": _environment,
            "baseline": _baseline,
            "device": lambda row: _numbers(row, "first_seen", "last_seen"),
            "lease": lambda row: _numbers(row, "token", "counter", "pid", "pid_start", "granted"),
            "slot": lambda row: _numbers(row, "position"),
            "artefact": lambda row: _numbers(row, "size"),
        }
        for table in (*(t for t in COLUMNS if t != "attempt"), "environment", "slot"):
            yield lambda table=table: self._table(table, also.get(table))  # type: ignore[misc]
        for table in ("lease", "artefact", "attempt_artefact"):
            yield lambda table=table: self._table(table, also.get(table))  # type: ignore[misc]

    def _table(self, table: str, also: Callable[[Row], None] | None) -> None:
        for row in self._rows(f'SELECT * FROM "{table}"'):
            self.checked += 1
            what = f"{table} {' '.join(str(row[k]) for k in _KEYS.get(table, ('id',)))}"
            damage: AssayError | None = None
            try:
                damage = damage_of(table, row, what) if table in COLUMNS else None
                if damage is None and also is not None:
                    also(row)
            except DamageError as error:
                damage = error
            except (ValueError, TypeError, KeyError) as error:
                damage = damaged(what, str(error))
            if damage:
                self.damaged.setdefault(what, damage)

    def _cell(self, row: Row) -> None:
        info = cell_info({**row, "unit": None})
        attempt = counted(info, self._attempts)
        if attempt is None and (info.outcome, info.attempt) != (None, None):
            raise ValueError("it is not done and has an outcome")
        _numbers(row, "failures")

    def _rows(self, sql: str) -> list[Row]:
        with self._store.database.read() as connection:
            return [dict(row) for row in connection.execute(text(sql)).mappings()]


_KEYS = {
    "cell": ("run", "id"),
    "device": ("name",),
    "pack": ("nonce",),
    "baseline": ("key",),
    "environment": ("sha256",),
    "artefact": ("sha256",),
    "slot": ("run", "name"),
    "lease": ("device",),
    "attempt_artefact": ("attempt", "role"),
}


def _environment(row: Row) -> None:
    if sha256_of(as_object(row["data"])) != row["sha256"]:
        raise ValueError("it has another hash")


def _baseline(row: Row) -> None:
    import json

    inputs = json.loads(row["inputs"]) if isinstance(row["inputs"], str) else row["inputs"]
    if BaselineKey(row["model_sha256"], inputs, row["environment"]).digest() != row["key"]:
        raise ValueError("its key is of something else")


def _state(kind: type[RunState] | type[AttemptState], value: Any) -> None:
    kind(value)


def _numbers(row: Row, *names: str) -> None:
    for name in names:
        if isinstance(row[name], bool) or not isinstance(row[name], int | float):
            raise TypeError(f"{name} is no number")
