"""Cells that leave as an archive: claimed without a lease, and brought back by their nonce.

The nonce does for them what the token does for the others (docs/decisions/0011-offline.md): a
result is counted only while the attempt that left with it is still running.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import Connection, insert, select, text
from sqlmodel import col

from orchestrator.errors import InfraError, InputError
from orchestrator.queue.states import AttemptState, CellState
from orchestrator.store import attempts
from orchestrator.store.database import Store
from orchestrator.store.digests import sealed
from orchestrator.store.reader import CELL, cell_info
from orchestrator.store.records import AttemptRecord, Claim, Json
from orchestrator.store.tables import Attempt, Cell, Pack

TAKEN_BACK = AttemptRecord(
    AttemptState.CANCELLED,
    error_id="E-CANCELLED",
    error="the packed cell was taken back before its result came",
)


def claim(
    store: Store,
    run: str,
    device: str,
    cells: Collection[str],
    nonce: str,
    manifest: Callable[[Sequence[Claim]], Json],
) -> Json:
    """Take those of ``cells`` that wait in one slot which ``device`` may serve; the manifest.

    ``manifest`` makes it of the claims, in plan order; it is kept under ``nonce``. All of it is one
    transaction. Raises InputError E-PACK-CELLS when none is left for the device, InfraError
    E-STORE-*.
    """
    with store.database.write() as connection:
        waiting = connection.execute(
            select(col(Cell.id), col(Cell.slot))
            .where(
                col(Cell.run) == run,
                col(Cell.id).in_(list(cells)),
                col(Cell.state) == CellState.PENDING,
            )
            .order_by(col(Cell.position))
            .with_for_update()
        ).all()
        slot = attempts.slot_of(connection, run, device, among={row.slot for row in waiting})
        chosen = [row.id for row in waiting if row.slot == slot]
        if not chosen:
            raise InputError(
                "E-PACK-CELLS",
                f"no cell that waits can go to {device}",
                where=run,
                fix="see: assay status, assay logs",
            )
        claims = [_claim(connection, run, cell, device) for cell in chosen]
        data = manifest(claims)
        row = {"nonce": nonce, "run": run, "device": device, "created": time.time()}
        connection.execute(insert(Pack).values(**sealed("pack", {**row, "manifest": data})))
        for one in claims:
            attempts.take(connection, run, one.cell.id)
            attempts.start(
                connection, run, one.cell.id, time.time(), device=device,
                offline=nonce, attempt=one.attempt,
            )  # fmt: skip
    return data


def _claim(connection: Connection, run: str, cell: str, device: str) -> Claim:
    row = connection.execute(
        text(f"{CELL} WHERE c.run = :run AND c.id = :id"), {"run": run, "id": cell}
    )
    info = cell_info(dict(row.mappings().one()))
    number = attempts.next_number(connection, run, cell)
    return Claim(uuid.uuid4().hex, number, device, 0, info)


def finish(store: Store, nonce: str, records: Mapping[str, AttemptRecord]) -> dict[str, CellState]:
    """End the attempts of an archive, all or none; the new state of each one's cell.

    Raises InfraError E-LEASE-STALE when one of them is not out (any more), and as Store.finish.
    """
    for record in records.values():
        store.check(record)
    with store.database.write() as connection:
        out = running(connection, nonce)
        settled: dict[str, CellState] = {}
        for attempt, record in records.items():
            if attempt not in out:
                raise InfraError(
                    "E-LEASE-STALE",
                    f"attempt {attempt} is not out with archive {nonce[:8]}",
                    fix="its cell was taken back; this result is not counted",
                    retryable=False,
                )
            store.artefacts.require(record.artefacts.values())
            settled[attempt] = attempts.end(connection, attempt, record)
    return settled


def take_back(store: Store, nonce: str) -> int:
    """The cells of an archive that are still out wait again; how many."""
    with store.database.write() as connection:
        out = running(connection, nonce)
        for attempt in out:
            attempts.end(connection, attempt, TAKEN_BACK)
    return len(out)


def running(connection: Connection, nonce: str) -> list[str]:
    """The attempts that left with ``nonce`` and are out."""
    found = connection.execute(
        select(col(Attempt.id))
        .where(col(Attempt.offline) == nonce, col(Attempt.state) == AttemptState.RUNNING)
        .with_for_update()
    )
    return list(found.scalars())
