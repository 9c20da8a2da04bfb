"""Grant, renew and free leases: statements inside a write transaction."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update
from sqlmodel import col

from orchestrator.errors import InfraError
from orchestrator.store import fences, records
from orchestrator.store.db_errors import stale
from orchestrator.store.records import LeaseInfo, Owner
from orchestrator.store.tables import Device, Lease

FREE = {"coordinator": None, "host": "", "boot_id": "", "pid": 0, "pid_start": 0}


def grant(
    connection: Connection, device: str, owner: Owner, now: float
) -> records.Lease | LeaseInfo:
    """A lease with the next token, or the lease that is in the way.

    Raises InfraError E-DEVICE-UNKNOWN.
    """
    table = Lease.__table__  # type: ignore[attr-defined]  # SQLModel adds it at run time
    row = connection.execute(
        select(table).where(col(Lease.device) == device).with_for_update()
    ).first()
    if row is None:
        known = select(col(Device.name)).where(col(Device.name) == device)
        if connection.execute(known).first() is None:
            raise InfraError(
                "E-DEVICE-UNKNOWN", f"no device {device!r} in the store", retryable=False
            )
        connection.execute(
            insert(Lease).values(device=device, token=0, counter=0, granted=now, **FREE)
        )
    elif row.coordinator is not None:
        other = Owner(row.coordinator, row.host, row.boot_id, row.pid, row.pid_start)
        return LeaseInfo(device, row.token, row.counter, other, row.granted)
    return _granted(connection, device, owner, now)


def regrant(connection: Connection, lease: records.Lease, now: float) -> records.Lease:
    """The same lease with a new token. Raises InfraError E-LEASE-STALE when it was lost."""
    require(connection, lease.device, lease.token)
    return _granted(connection, lease.device, lease.owner, now)


def _granted(connection: Connection, device: str, owner: Owner, now: float) -> records.Lease:
    token = fences.next_token(connection)
    connection.execute(
        update(Lease)
        .where(col(Lease.device) == device)
        .values(token=token, counter=0, granted=now, **vars(owner))
    )
    shown = fences.claim(connection, device, owner.coordinator)
    return records.Lease(device, token, owner, shown)


def renew(connection: Connection, lease: records.Lease) -> bool:
    """Bump the heartbeat counter; False when the lease is no longer this one."""
    held = update(Lease).where(
        col(Lease.device) == lease.device,
        col(Lease.token) == lease.token,
        col(Lease.coordinator).is_not(None),
    )
    return connection.execute(held.values(counter=col(Lease.counter) + 1)).rowcount == 1


def free(connection: Connection, lease: records.Lease) -> bool:
    """Give the device back; False when the lease was lost already."""
    held = update(Lease).where(
        col(Lease.device) == lease.device,
        col(Lease.token) == lease.token,
        col(Lease.coordinator).is_not(None),
    )
    return connection.execute(held.values(**FREE)).rowcount == 1


def take_away(connection: Connection, seen: LeaseInfo) -> bool:
    """Free a lease observed dead; False when it moved since (token, counter or owner)."""
    unmoved = update(Lease).where(
        col(Lease.device) == seen.device,
        col(Lease.token) == seen.token,
        col(Lease.counter) == seen.counter,
        col(Lease.coordinator) == seen.owner.coordinator,
    )
    return connection.execute(unmoved.values(**FREE)).rowcount == 1


def require(connection: Connection, device: str | None, token: int) -> None:
    """Raises InfraError E-LEASE-STALE unless (device, token) is a lease that is held now."""
    row = connection.execute(
        select(col(Lease.token), col(Lease.coordinator))
        .where(col(Lease.device) == device)
        .with_for_update()
    ).first()
    if row is None or row.token != token or row.coordinator is None:
        raise stale(device, token)
