"""``Store``: the system of record behind one object, safe from many threads and processes.

Every method is one short transaction and may raise InfraError E-STORE-LOCKED, E-STORE-READONLY,
E-DISK-FULL and the other E-STORE-* of store/db_errors.py; docstrings name only what comes on top.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, insert, select, text, update
from sqlmodel import col

from orchestrator.errors import InfraError
from orchestrator.queue.fences import Remembered, Standing, Step
from orchestrator.queue.placement import Prefer
from orchestrator.queue.states import RUN_STEPS, AttemptState, CellState, RunState
from orchestrator.store import attempts, fences, leases, place, queued
from orchestrator.store.artefacts import Artefacts
from orchestrator.store.db_errors import copied, file_fault, missing, value_fault
from orchestrator.store.digests import sealed
from orchestrator.store.engine import Database, insert_missing
from orchestrator.store.farm import farm_id
from orchestrator.store.owner import owner_is_dead
from orchestrator.store.reader import Reader, Row
from orchestrator.store.records import (
    AttemptRecord,
    BaselineKey,
    CellSpec,
    Claim,
    Finish,
    Json,
    Lease,
    LeaseInfo,
    Owner,
    sha256_of,
)
from orchestrator.store.schema import check
from orchestrator.store.sqlite import DATABASE
from orchestrator.store.tables import Baseline, Cell, Device, Environment, Run, Slot, Verdict

if TYPE_CHECKING:
    pass

SEEN_S = 60.0
"""How exact the time is at which a unit was last seen, in seconds."""

LOST = AttemptRecord(
    AttemptState.CANCELLED,
    error_id="E-COORDINATOR-LOST",
    error="the coordinator that ran this attempt is gone",
)
BEHIND = AttemptRecord(
    AttemptState.CANCELLED,
    error_id="E-LEASE-BEHIND",
    error="the device remembered a later lease; the store now goes on above it",
)
RELEASED = AttemptRecord(
    AttemptState.CANCELLED,
    error_id="E-CANCELLED",
    error="the coordinator gave the device back before the attempt ended",
)


class Store(Reader):
    """One folder: ``assay.db`` and ``artefacts/``. Reading methods are those of ``Reader``."""

    def __init__(self, database: Database, artefacts: Artefacts) -> None:
        super().__init__(self._select)
        self.database = database
        self.artefacts = artefacts
        self._settled = False

    @classmethod
    def open(cls, root: Path, *, readonly: bool = False, busy_timeout: float = 10.0) -> Self:
        """The store in folder ``root``, made on first use; ``busy_timeout`` is in seconds.

        Raises InputError E-STORE-MISSING (readonly and not there), InfraError E-STORE-OLD,
        E-STORE-NEW, E-STORE-CORRUPT.
        """
        path = root / DATABASE
        if readonly and not path.is_file():
            raise missing(path)
        try:
            if not readonly:
                root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise file_fault(error, root) from error
        database = Database(path, readonly=readonly, busy_timeout=busy_timeout)
        try:
            with database.read() as connection:
                revision = database.revision(connection)
            if revision is None:
                if readonly:
                    raise missing(path)
                revision = _migrate(database, create_only=True)[1]
            check(revision, path)
        except BaseException:
            database.close()
            raise
        return cls(database, Artefacts(root / "artefacts"))

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Runs ------------------------------------------------------------------------------------

    def create_run(
        self, *, name: str, frozen: Json, cells: Sequence[CellSpec], retry_infra: int = 2
    ) -> str:
        """Queue a run; its ID, like 20261121-0112-quickstart-3f2a.

        ``frozen`` is whatever is needed to resume (matrix, inventory, hashes), as JSON data.
        Raises InputError E-SLOTS when the slots cannot all have a unit of their own, InfraError
        E-STORE-VALUE; ValueError when cells of one slot differ in candidates.
        """
        slots = queued.slots_of(cells)
        slug = "".join(c if c.isalnum() and c.isascii() else "-" for c in name).strip("-")[:40]
        stamp = time.strftime("%Y%m%d-%H%M", time.gmtime())
        run = f"{stamp}-{slug or 'run'}-{secrets.token_hex(4)}"
        with self.database.write() as connection:
            row = {"id": run, "name": name, "retry_infra": retry_infra, "created": time.time()}
            row = self._sealed("run", {**row, "frozen": frozen})
            connection.execute(insert(Run).values(**row, state=RunState.QUEUED))
            queued.slots(connection, run, slots)
            queued.cells(connection, run, cells)
        return run

    def add_cells(self, run: str, cells: Sequence[CellSpec]) -> int:
        """Queue more cells of slots that the run has; how many were not there yet."""
        with self.database.write() as connection:
            return queued.cells(connection, run, cells)

    def set_run_state(self, run: str, state: RunState) -> None:
        """Move the run on; setting the state it has is allowed, so that resume may repeat it.

        Raises InfraError E-RUN-STATE for a step that queue/states.py does not allow.
        """
        before = [state, *(s for s, steps in RUN_STEPS.items() if state in steps)]
        with self.database.write() as connection:
            moved = connection.execute(
                update(Run)
                .where(col(Run.id) == run, col(Run.state).in_(before))
                .values(state=state)
            )
            if moved.rowcount != 1:
                raise InfraError(
                    "E-RUN-STATE", f"run {run!r} cannot become {state}", retryable=False
                )

    # Devices and leases ----------------------------------------------------------------------

    def upsert_device(self, name: str, device_class: str, emulated: bool, identity: Json) -> None:
        """Record that the unit was seen now, and what it is.

        Keys of ``identity`` that are not given stay as they are: runs and checks know different
        things.

        Within SEEN_S nothing is written unless something changed: a commit costs a sync to disk.
        Nothing is taken over from a damaged record.
        """
        now = time.time()
        known = next((d for d in self.devices() if d.name == name and not d.damage), None)
        if known is not None:
            identity = {**known.identity, **identity}
            told = (device_class, emulated, identity)
            same = told == (known.device_class, known.emulated, known.identity)
            if same and abs(now - known.last_seen) < SEEN_S:
                return
        seen: dict[str, Any] = {
            "device_class": device_class,
            "emulated": emulated,
            "identity": identity,
            "last_seen": now,
            "digest": None,
        }
        seen["digest"] = self._sealed("device", {"name": name, **seen})["digest"]
        with self.database.write() as connection:
            insert_missing(connection, Device, {"name": name, "first_seen": now, **seen})
            connection.execute(update(Device).where(col(Device.name) == name).values(**seen))

    def settle(self) -> str | None:
        """Before the first lease: the store drives from where it lies. A line about a change.

        A store that was moved or copied since it last drove becomes a new incarnation.
        """
        here = place.here(self.database.path.parent)
        with self.database.write() as connection:
            before = fences.settle(connection, here)
        self._settled = True
        if before is None:
            return None
        was, now = place.shown(before), place.shown(here)
        return (
            f"this store was at {was} and is now at {now}: it goes on from here;"
            " if it is a copy, its devices refuse the other one from now on"
        )

    def adopt(self) -> Standing:
        """This copy of the store goes on, and its devices refuse every other from now on."""
        with self.database.write() as connection:
            return fences.adopt(connection, place.here(self.database.path.parent))

    def catch_up(self, lease: Lease, seen: Remembered) -> tuple[Lease, str | None]:
        """The lease with a token above what the device remembers; a line about why, or None.

        Attempts under it are cancelled, their cells wait. Raises InfraError E-STORE-COPY: another
        copy of the store drove the device, and may go on; E-LEASE-STALE.
        """
        root = self.database.path.parent
        here, gone = place.here(root), place.gone(seen.place, root, farm_id(root))
        with self.database.write() as connection:
            leases.require(connection, lease.device, lease.token)
            found = fences.catch_up(connection, seen, refused=lease.token, here=here, gone=gone)
            if found.step is not Step.COPIED:
                attempts.cancel(connection, lease.device, lease.token, BEHIND)
                lease = leases.regrant(connection, lease, time.time())
        if found.step is Step.COPIED:
            raise copied(lease.device, place.shown(seen.place), place.shown(here))
        if found.step is Step.FOLLOWED:
            return lease, None
        there = place.shown(seen.place or here)
        return lease, (
            f"{lease.device}: this store was restored from a backup: the device remembers lease"
            f" {seen.token}, granted at {there}, and the store {found.before.token} as its last;"
            " it goes on above both"
        )

    def acquire_lease(self, device: str, owner: Owner) -> Lease | None:
        """The device, or None while somebody holds it who is not known to be dead.

        A dead owner on this host loses the lease here and now; one elsewhere is for a LeaseWatch
        and ``expire``. Raises InfraError E-DEVICE-UNKNOWN (upsert_device comes first).
        """
        if not self._settled:
            self.settle()
        with self.database.write() as connection:
            lease = leases.grant(connection, device, owner, time.time())
            if isinstance(lease, LeaseInfo) and owner_is_dead(lease.owner):
                _expire(connection, lease)
                lease = leases.grant(connection, device, owner, time.time())
        return lease if isinstance(lease, Lease) else None

    def renew(self, held: Sequence[Lease]) -> set[str]:
        """Heartbeat: bump the counter of every lease; the devices whose lease was lost."""
        with self.database.write() as connection:
            return {lease.device for lease in held if not leases.renew(connection, lease)}

    def release(self, lease: Lease) -> None:
        """Give the device back; attempts still running under the lease are cancelled."""
        with self.database.write() as connection:
            if leases.free(connection, lease):
                attempts.cancel(connection, lease.device, lease.token, RELEASED)

    def expire(self, seen: LeaseInfo) -> int | None:
        """Take away a lease observed dead; its running attempts are cancelled, their cells wait.

        Returns the number of cells put back, or None when the lease moved since it was ``seen``.
        """
        with self.database.write() as connection:
            return _expire(connection, seen)

    # Attempts --------------------------------------------------------------------------------

    def claim(self, run: str, lease: Lease, *, prefer: Prefer | None = None) -> Claim | None:
        """The next cell for the leased unit, with a new running attempt; None when there is none.

        The first claim binds the unit to a slot of the run, and every cell of the slot then goes
        to that unit. Raises InfraError E-LEASE-STALE.
        """
        with self.database.write() as connection:
            return attempts.claim(connection, run, lease, prefer, time.time())

    def finish(self, attempt: str, token: int, record: AttemptRecord) -> Finish:
        """End an attempt and move its cell on (queue/retry.py). Durable when it returns.

        Delivering the same record again is answered with ``already``. Raises InfraError
        E-LEASE-STALE (the lease was lost; the result is not counted), E-ATTEMPT-FINAL (ended
        before with another content), E-ATTEMPT-UNKNOWN, E-ARTEFACT-MISSING, E-STORE-VALUE.
        """
        self.check(record)
        with self.database.write() as connection:
            # Inside the transaction: compaction deletes files only while it holds the write lock.
            self.artefacts.require(record.artefacts.values())
            return attempts.finish(connection, attempt, token, record)

    def cancel_running(self, lease: Lease, reason: str = "the operator interrupted the run") -> int:
        """Cancel what runs under the lease and keep the lease; how many attempts.

        Raises InfraError E-LEASE-STALE.
        """
        record = AttemptRecord(AttemptState.CANCELLED, error_id="E-CANCELLED", error=reason)
        with self.database.write() as connection:
            leases.require(connection, lease.device, lease.token)
            return attempts.cancel(connection, lease.device, lease.token, record)

    def close_pending(self, run: str, cells: Iterable[str], record: AttemptRecord) -> int:
        """Give up cells that no unit took (queue timeout, unreachable device); how many.

        Cells that are not pending are left alone. ``record`` must end a cell: ValueError for
        ``cancelled`` or ``retryable``. Raises InfraError E-STORE-VALUE.
        """
        self.check(record)
        with self.database.write() as connection:
            return attempts.close_pending(connection, run, cells, record, time.time())

    def unit_lost(self, run: str, device: str) -> list[str]:
        """Free the slots of a unit that will not come back, and return them.

        A slot is kept when one of its cells is running or done: then its results belong to this
        unit.
        """
        with self.database.write() as connection:
            used = select(col(Cell.slot)).where(
                col(Cell.run) == run, col(Cell.state) != CellState.PENDING
            )
            mine = (
                col(Slot.run) == run,
                col(Slot.unit) == device,
                col(Slot.name).not_in(used),
            )
            slots = list(connection.execute(select(col(Slot.name)).where(*mine)).scalars())
            connection.execute(update(Slot).where(*mine).values(unit=None))
            return slots

    # Environments, baselines, verdicts, packed samples ---------------------------------------

    def environment(self, data: Json) -> str:
        """Keep an environment; its key, the sha256 of its canonical JSON. E-STORE-VALUE."""
        try:
            sha256 = sha256_of(data)
        except (ValueError, TypeError) as error:
            raise value_fault(error, self.database.path) from error
        with self.database.write() as connection:
            insert_missing(connection, Environment, {"sha256": sha256, "data": data})
        return sha256

    def baseline_put(self, key: BaselineKey, data: Json) -> Json:
        """Store a baseline once; returns what is stored, which is the first one put.

        The environment in ``key`` must have been kept before. Raises InfraError E-STORE-VALUE.
        """
        with self.database.write() as connection:
            row = {
                "key": key.digest(),
                "model_sha256": key.model_sha256,
                "inputs": list(key.inputs),
                "environment": key.environment,
                "created": time.time(),
                "data": data,
            }
            insert_missing(connection, Baseline, self._sealed("baseline", row))
        stored = self.baseline_get(key)
        assert stored is not None, "baselines are never deleted"
        return stored

    def save_verdict(self, run: str, document: Json) -> None:
        """Keep a verdict document; ``verdict(run)`` answers with the newest."""
        with self.database.write() as connection:
            row = {"run": run, "created": time.time(), "document": document}
            connection.execute(insert(Verdict).values(**self._sealed("verdict", row)))

    def _select(self, sql: str, values: Mapping[str, Any]) -> list[Row]:
        with self.database.read() as connection:
            return [dict(row) for row in connection.execute(text(sql), values).mappings()]

    def _sealed(self, table: str, row: Json) -> Json:
        """Raises InfraError E-STORE-VALUE."""
        try:
            return sealed(table, row)
        except (ValueError, TypeError) as error:
            raise value_fault(error, self.database.path) from error

    def check(self, record: AttemptRecord) -> None:
        """Raises InfraError E-STORE-VALUE for a record that no database could hold."""
        try:
            record.columns()
        except (ValueError, TypeError, RecursionError) as error:
            raise value_fault(error, self.database.path) from error


def upgrade(root: Path, *, busy_timeout: float = 10.0) -> tuple[str | None, str]:
    """Migrate the store in ``root``; (revision before, revision now).

    Raises InputError E-STORE-MISSING, InfraError E-STORE-NEW, E-STORE-CORRUPT, E-STORE-*.
    """
    path = root / DATABASE
    if not path.is_file():
        raise missing(path)
    database = Database(path, readonly=False, busy_timeout=busy_timeout)
    try:
        return _migrate(database)
    finally:
        database.close()


def _migrate(database: Database, *, create_only: bool = False) -> tuple[str | None, str]:
    # Alembic takes 0.1 s to load, and only a new or an old store needs it.
    from orchestrator.store.migrate import migrate

    return migrate(database, create_only=create_only)


def _expire(connection: Connection, seen: LeaseInfo) -> int | None:
    if not leases.take_away(connection, seen):
        return None
    return attempts.cancel(connection, seen.device, seen.token, LOST)
