"""Which files a store's records refer to, and what a verdict on a run rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from sqlalchemy import text

from orchestrator.errors import AssayError, DamageError
from orchestrator.store.database import Store
from orchestrator.store.digests import damaged
from orchestrator.store.reader import as_object
from orchestrator.store.records import CellInfo, Json
from orchestrator.store.rows import counted, database_damage

DATABASE = "the database"
"""Named so, damage is of the whole: no pass can rest on what is left."""


class Use(NamedTuple):
    """``of``: the run, or the sha256 of the model whose FP32 baseline it is."""

    sha256: str
    what: str
    of: str

    @property
    def text(self) -> str:
        return self.what if self.what == BASELINE else f"{self.what} of {self.of}"


BASELINE = "an FP32 baseline"


def uses(store: Store) -> Iterator[Use]:
    """Every reference to a file. A small file that was packed is not needed, its pack is.

    A record that cannot be read refers to nothing.
    """
    for row in _rows(
        store,
        "SELECT x.sha256, x.packed, x.role, a.run FROM attempt_artefact x"
        " JOIN attempt a ON a.id = x.attempt",
    ):
        yield Use(row["packed"] or row["sha256"], row["role"], row["run"])
    for row in _rows(store, "SELECT id, frozen FROM run"):
        for sha256, what in _staged(_object(_object(row["frozen"]).get("staging"))):
            yield Use(sha256, what, row["id"])
    for row in _rows(store, "SELECT model_sha256, data FROM baseline"):
        outputs = _object(row["data"]).get("outputs")
        for sha256 in outputs if isinstance(outputs, list) else ():
            yield Use(str(sha256), BASELINE, row["model_sha256"])


def needs(found: Iterable[Use]) -> dict[str, tuple[str, ...]]:
    """sha256 -> what needs it."""
    by_file: dict[str, dict[str, int]] = {}
    for use in found:
        counts = by_file.setdefault(use.sha256, {})
        counts[use.text] = counts.get(use.text, 0) + 1
    return {
        sha256: tuple(what if n == 1 else f"{what} ({n} attempts)" for what, n in counts.items())
        for sha256, counts in by_file.items()
    }


def run_damage(store: Store, run: str) -> dict[str, AssayError]:
    """Damage to anything that a verdict on the run rests on: what -> why.

    The database's file, the run's rows, and the files of its attempts, input sets and baselines,
    each read once. Raises InputError E-FROZEN, InfraError E-STORE-*.
    """
    found: dict[str, AssayError] = {}
    cells, attempts = store.cells(run), {a.id: a for a in store.attempts(run)}
    if error := database_damage(store) or _lost(run, cells):
        found[DATABASE] = error
    found |= {f"attempt {a.id} of {a.cell}": a.damage for a in attempts.values() if a.damage}
    for cell in cells:
        try:
            counted(cell, attempts)
        except DamageError as error:
            if error not in found.values():
                found[cell.id] = error
    units = {a.device for a in attempts.values()}
    found |= {f"device {d.name}": d.damage for d in store.devices() if d.damage and d.name in units}
    for sha256 in {a.environment for a in attempts.values() if a.environment}:
        try:
            store.environment_data(sha256)
        except DamageError as error:
            found[f"environment {sha256}"] = error
    models = _object(_object(store.frozen(run).get("staging")).get("models"))
    rests_on = {run, *(str(_object(told).get("sha256")) for told in models.values())}
    sent = ("model ", "tensor ", "bundle ")  # a device has had them, whatever became of them here
    wanted = (u for u in uses(store) if u.of in rests_on and not u.what.startswith(sent))
    for sha256, what in sorted(needs(wanted).items()):
        try:
            store.artefacts.verify(sha256)
        except DamageError as error:
            found[", ".join(what)] = error
    return found


def _lost(run: str, cells: Iterable[CellInfo]) -> DamageError | None:
    """Cells are numbered in plan order from 0."""
    there = {c.position for c in cells if not c.damage}
    lost = len({*range(max(there, default=-1) + 1)} - {c.position for c in cells})
    return damaged(f"run {run}", f"{lost} of its cells are not there") if lost else None


def _staged(staging: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The files of runs/staged.py, read as plain data: a damaged record hides no file."""
    for part in ("models", "tensors", "bundles"):
        for name, told in _object(staging.get(part)).items():
            yield str(_object(told).get("sha256")), f"{part[:-1]} {name}"
    for name, told in _object(staging.get("sets")).items():
        one = _object(told)
        for sha256 in (one.get("x"), one.get("labels"), *_object(one.get("slices")).values()):
            if sha256 is not None:
                yield str(sha256), f"input set {name}"
    for name, sha256 in _object(staging.get("spots")).items():
        yield str(sha256), f"samples drawn for {name}"


def _object(value: Any) -> Json:
    """A JSON object, {} for what is none."""
    try:
        return as_object(value)
    except ValueError:
        return {}


def _rows(store: Store, sql: str) -> list[Mapping[str, Any]]:
    with store.database.read() as connection:
        return [dict(row) for row in connection.execute(text(sql)).mappings()]
