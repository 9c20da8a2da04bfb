"""Queueing the slots and cells of a run, inside a transaction of the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlmodel import col

from orchestrator.errors import InputError
from orchestrator.queue.placement import matching
from orchestrator.queue.states import CellState
from orchestrator.store.digests import sealed
from orchestrator.store.records import CellSpec
from orchestrator.store.tables import Cell, Slot


def slots_of(cells: Sequence[CellSpec]) -> dict[str, Sequence[str]]:
    """Slot -> candidates, in plan order.

    Raises InputError E-SLOTS when they cannot all have a unit of their own; ValueError when cells
    of one slot differ in candidates.
    """
    found: dict[str, Sequence[str]] = {}
    for cell in sorted(cells, key=lambda cell: cell.position):
        if list(found.setdefault(cell.slot, cell.candidates)) != list(cell.candidates):
            raise ValueError(f"cells of slot {cell.slot!r} differ in candidates")
    placed = matching(found)
    for slot, units in found.items():
        if slot not in placed:
            raise InputError(
                "E-SLOTS",
                f"slot {slot!r} is left without a unit of its own"
                f" (candidates: {', '.join(units) or 'none'})",
                fix="add a unit to the inventory or ask for fewer",
            )
    return found


def slots(connection: Connection, run: str, candidates: Mapping[str, Sequence[str]]) -> None:
    rows = [
        {"run": run, "name": slot, "position": n, "candidates": list(units)}
        for n, (slot, units) in enumerate(candidates.items())
    ]
    if rows:
        connection.execute(insert(Slot), rows)


def cells(connection: Connection, run: str, specs: Sequence[CellSpec]) -> int:
    """Those that are not there yet, pending; how many."""
    there = set(connection.execute(select(col(Cell.id)).where(col(Cell.run) == run)).scalars())
    new = [_row(run, spec) for spec in specs if spec.id not in there]
    if new:
        connection.execute(insert(Cell), new)
    return len(new)


def _row(run: str, spec: CellSpec) -> dict[str, Any]:
    row = {name: value for name, value in vars(spec).items() if name != "candidates"}
    row = sealed("cell", {**row, "run": run})
    return {**row, "state": CellState.PENDING, "failures": 0}
