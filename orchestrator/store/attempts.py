"""Claim cells and end attempts: statements inside a write transaction.

Every change is conditional on the state it starts from, so it stays right where writers run side
by side (PostgreSQL), not only under SQLite's single write lock.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Connection, func, insert, select, text, update
from sqlmodel import col

from orchestrator.errors import InfraError
from orchestrator.queue.placement import Prefer, choose_slot, preferences
from orchestrator.queue.retry import AttemptSummary, decide
from orchestrator.queue.states import CELL_STEPS, AttemptState, CellState
from orchestrator.store import leases
from orchestrator.store.db_errors import stale
from orchestrator.store.digests import digest_of
from orchestrator.store.engine import insert_missing
from orchestrator.store.reader import CELL, cell_info
from orchestrator.store.records import AttemptRecord, Claim, Finish, Lease
from orchestrator.store.tables import (
    Artefact,
    Attempt,
    AttemptArtefact,
    Cell,
    Environment,
    Run,
    Slot,
)

_BEGUN = [
    col(getattr(Attempt, name))
    for name in ("id", "run", "cell", "number", "device", "token", "offline", "claimed")
]
"""What an attempt's digest covers of its beginning."""


def claim(
    connection: Connection, run: str, lease: Lease, prefer: Prefer | None, now: float
) -> Claim | None:
    """Take the next pending cell of the unit's slot, None when there is none.

    Raises InfraError E-LEASE-STALE.
    """
    leases.require(connection, lease.device, lease.token)
    slot = slot_of(connection, run, lease.device)
    cell = None if slot is None else _next_cell(connection, run, slot, prefer)
    if cell is None:
        return None
    take(connection, run, cell)
    attempt, number = start(connection, run, cell, now, device=lease.device, token=lease.token)
    row = connection.execute(
        text(f"{CELL} WHERE c.run = :run AND c.id = :id"), {"run": run, "id": cell}
    )
    info = cell_info(dict(row.mappings().one()))
    return Claim(attempt, number, lease.device, lease.token, info)


def start(
    connection: Connection,
    run: str,
    cell: str,
    now: float,
    *,
    device: str | None = None,
    token: int = 0,
    offline: str | None = None,
    attempt: str | None = None,
) -> tuple[str, int]:
    """Insert a running attempt, a new one unless its ID is given; its ID and number."""
    attempt, number = attempt or uuid.uuid4().hex, next_number(connection, run, cell)
    connection.execute(
        insert(Attempt).values(
            id=attempt,
            run=run,
            cell=cell,
            number=number,
            device=device,
            token=token,
            state=AttemptState.RUNNING,
            claimed=now,
            retryable=False,
            offline=offline,
        )
    )
    return attempt, number


def next_number(connection: Connection, run: str, cell: str) -> int:
    """The number that the cell's next attempt gets."""
    last = select(func.max(col(Attempt.number))).where(
        col(Attempt.run) == run, col(Attempt.cell) == cell
    )
    return int(connection.execute(last).scalar() or 0) + 1


def take(connection: Connection, run: str, cell: str) -> None:
    """A pending cell is running from now on."""
    _move_cell(connection, run, cell, CellState.PENDING, state=CellState.RUNNING)


def finish(connection: Connection, attempt: str, token: int, record: AttemptRecord) -> Finish:
    """End a running attempt; once more with the same record changes nothing.

    Raises InfraError E-ATTEMPT-UNKNOWN, E-ATTEMPT-FINAL, E-LEASE-STALE.
    """
    row = connection.execute(
        select(*_BEGUN, col(Attempt.state), col(Attempt.digest))
        .where(col(Attempt.id) == attempt)
        .with_for_update()
    ).first()
    if row is None:
        raise InfraError("E-ATTEMPT-UNKNOWN", f"no attempt {attempt!r}", retryable=False)
    if row.digest == digest_of("attempt", {**row._mapping, **record.columns()}):
        state = select(col(Cell.state)).where(col(Cell.run) == row.run, col(Cell.id) == row.cell)
        return Finish(True, CellState(connection.execute(state).scalar_one()))
    if row.token != token or row.state == AttemptState.CANCELLED:
        raise stale(row.device, token)
    if row.state != AttemptState.RUNNING:
        raise InfraError(
            "E-ATTEMPT-FINAL",
            f"attempt {attempt} ended before as {row.state} with another content",
            retryable=False,
        )
    leases.require(connection, row.device, token)
    return Finish(False, end(connection, attempt, record))


def end(connection: Connection, attempt: str, record: AttemptRecord) -> CellState:
    """Write ``record`` to a running attempt and move its cell on; the cell's new state.

    ValueError or TypeError for what cannot be stored (AttemptRecord.columns).
    """
    running = connection.execute(
        select(*_BEGUN).where(
            col(Attempt.id) == attempt, col(Attempt.state) == AttemptState.RUNNING
        )
    ).first()
    if running is None:
        raise InfraError("E-ATTEMPT-FINAL", f"attempt {attempt} is not running", retryable=False)
    columns = record.columns()
    if record.environment is not None:
        row = {"sha256": columns["environment"], "data": record.environment}
        insert_missing(connection, Environment, row)
    digest = digest_of("attempt", {**running._mapping, **columns})
    ended = connection.execute(
        update(Attempt)
        .where(col(Attempt.id) == attempt, col(Attempt.state) == AttemptState.RUNNING)
        .values(**{k: v for k, v in columns.items() if k != "artefacts"}, digest=digest)
    )
    if ended.rowcount != 1:
        raise InfraError("E-STORE-RACE", f"attempt {attempt} was ended meanwhile")
    files = sorted(record.artefacts.items())
    if files:
        insert_missing(connection, Artefact, *(vars(blob) for _, blob in files))
        rows = [{"attempt": attempt, "role": role, "sha256": blob.sha256} for role, blob in files]
        connection.execute(insert(AttemptArtefact), rows)
    return _settle(connection, attempt, record.state)


def cancel(connection: Connection, device: str, token: int, record: AttemptRecord) -> int:
    """End every running attempt of the lease with ``record``; their cells wait again. How many."""
    running = connection.execute(
        select(col(Attempt.id))
        .where(
            col(Attempt.device) == device,
            col(Attempt.token) == token,
            col(Attempt.state) == AttemptState.RUNNING,
        )
        .order_by(col(Attempt.claimed))
    )
    ids = list(running.scalars())
    for attempt in ids:
        end(connection, attempt, record)
    return len(ids)


def close_pending(
    connection: Connection, run: str, cells: Iterable[str], record: AttemptRecord, now: float
) -> int:
    """End cells that no unit ever took, each with an attempt without a device; how many."""
    if record.state is AttemptState.CANCELLED or record.retryable:
        raise ValueError("a cell is given up for good: neither cancelled nor retryable")
    closed = 0
    for cell in cells:
        waiting = select(col(Cell.id)).where(
            col(Cell.run) == run, col(Cell.id) == cell, col(Cell.state) == CellState.PENDING
        )
        if connection.execute(waiting.with_for_update()).first() is not None:
            attempt, _ = start(connection, run, cell, now)
            end(connection, attempt, record)
            closed += 1
    return closed


def _settle(connection: Connection, attempt: str, outcome: AttemptState) -> CellState:
    """Decide what follows the attempt that has just ended, and move the cell there."""
    here = connection.execute(
        select(col(Attempt.run), col(Attempt.cell), col(Attempt.device), col(Run.retry_infra))
        .join(Run, col(Run.id) == col(Attempt.run))
        .where(col(Attempt.id) == attempt)
    ).one()
    ended = connection.execute(
        select(col(Attempt.state), col(Attempt.retryable))
        .where(col(Attempt.run) == here.run, col(Attempt.cell) == here.cell)
        .order_by(col(Attempt.number))
    )
    decision = decide(
        here.retry_infra, [AttemptSummary(AttemptState(s), bool(r)) for s, r in ended]
    )
    values: dict[str, Any] = {"state": decision.cell, "failures": decision.failures}
    if decision.cell is CellState.DONE:
        values |= {"outcome": outcome, "attempt": attempt}
    before = CellState.PENDING if here.device is None else CellState.RUNNING
    _move_cell(connection, here.run, here.cell, before, **values)
    return decision.cell


def _move_cell(
    connection: Connection, run: str, cell: str, before: CellState, **values: Any
) -> None:
    if values["state"] not in CELL_STEPS[before]:
        raise ValueError(f"cell step {before} -> {values['state']}")
    moved = connection.execute(
        update(Cell)
        .where(col(Cell.run) == run, col(Cell.id) == cell, col(Cell.state) == before)
        .values(**values)
    )
    if moved.rowcount != 1:
        raise InfraError("E-STORE-RACE", f"cell {cell!r} of {run} is not {before}")


def _next_cell(connection: Connection, run: str, slot: str, prefer: Prefer | None) -> str | None:
    for wanted in preferences(prefer):
        # Cells that failed come last: a passing fault gets time to pass.
        found: str | None = connection.execute(
            select(col(Cell.id))
            .where(
                col(Cell.run) == run,
                col(Cell.slot) == slot,
                col(Cell.state) == CellState.PENDING,
                *(col(getattr(Cell, column)) == value for column, value in wanted.items()),
            )
            .order_by(col(Cell.failures), col(Cell.position))
            .limit(1)
            .with_for_update(skip_locked=True)
        ).scalar()
        if found is not None:
            return found
    return None


def slot_of(
    connection: Connection, run: str, unit: str, among: Collection[str] | None = None
) -> str | None:
    """The slot bound to ``unit`` in this run; binds the unit when it has none and one fits.

    ``among``: the slots that it may be bound to, if not all.
    """
    mine = select(col(Slot.name)).where(col(Slot.run) == run, col(Slot.unit) == unit)
    bound: str | None = connection.execute(mine).scalar()
    if bound is not None:
        return bound
    slots = connection.execute(
        select(col(Slot.name), col(Slot.candidates), col(Slot.unit))
        .where(col(Slot.run) == run)
        .order_by(col(Slot.position))
        .with_for_update()
    ).all()
    taken = {slot.unit for slot in slots}
    waiting = select(col(Cell.slot)).where(
        col(Cell.run) == run, col(Cell.state) == CellState.PENDING
    )
    busy = set(connection.execute(waiting.distinct()).scalars())
    chosen = choose_slot(
        unit,
        {
            slot.name: [
                name
                for name in slot.candidates
                if name not in taken and (name != unit or among is None or slot.name in among)
            ]
            for slot in slots
            if slot.unit is None and slot.name in busy
        },
    )
    if chosen is not None:
        connection.execute(
            update(Slot).where(col(Slot.run) == run, col(Slot.name) == chosen).values(unit=unit)
        )
    return chosen
