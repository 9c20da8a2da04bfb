"""The store's incarnation and its counter of tokens: statements inside a write transaction.

One row says what the store is now (``fence``); ``forebear`` keeps the incarnations that it goes on
from, each with the last token under it that counts as ours.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update
from sqlmodel import col

from device_worker.fence import Claim
from orchestrator.queue.fences import Remembered, Standing, Step, judge, raised
from orchestrator.store.tables import Fence, Forebear

FOLLOWED = 16
"""So many forebears are told to a device; of an older one it is told once it names it."""


class CaughtUp(NamedTuple):
    """What the device's memory meant to the store as it was ``before``."""

    step: Step
    before: Standing


def next_token(connection: Connection) -> int:
    """One counter for all devices: a device may come back under another name."""
    connection.execute(update(Fence).values(token=col(Fence.token) + 1))
    return int(connection.execute(select(col(Fence.token))).scalar_one())


def claim(connection: Connection, device: str, coordinator: str) -> Claim:
    """What the store shows to a device besides the token."""
    row = _row(connection)
    newest = select(col(Forebear.incarnation), col(Forebear.token)).order_by(
        col(Forebear.number).desc()
    )
    return Claim(
        incarnation=row.incarnation,
        generation=row.generation,
        place=row.place,
        device=device,
        coordinator=coordinator,
        follows={r.incarnation: r.token for r in connection.execute(newest.limit(FOLLOWED))},
    )


def settle(connection: Connection, here: str) -> str | None:
    """The store drives from ``here`` from now on; from where before, when that was elsewhere.

    A copy cannot be told from a store that was moved, so either is a new incarnation.
    """
    row = _row(connection)
    if row.place == here:
        return None
    if not row.place:
        connection.execute(update(Fence).values(place=here))
        return None
    _renew(connection, row, row.generation + 1, here)
    return str(row.place)


def adopt(connection: Connection, here: str) -> Standing:
    """This copy goes on, above every generation that it or a device of it has heard of."""
    row = _row(connection)
    generation = max(row.generation, row.heard) + 1
    _renew(connection, row, generation, here)
    connection.execute(update(Fence).values(adopted=generation))
    return _standing(_row(connection))


def catch_up(
    connection: Connection, seen: Remembered, *, refused: int, here: str, gone: bool
) -> CaughtUp:
    """Go on above what a device remembers that refused a token, unless a copy may do so too."""
    row = _row(connection)
    known = connection.execute(
        select(col(Forebear.token)).where(col(Forebear.incarnation) == seen.incarnation)
    ).scalar()
    own = _standing(row)
    step = judge(own, seen, refused=refused, known=known, gone=gone)
    if step is Step.COPIED:
        connection.execute(update(Fence).values(heard=max(row.heard, seen.generation)))
        return CaughtUp(step, own)
    connection.execute(update(Fence).values(token=raised(own.token, seen.token)))
    if seen.incarnation != own.incarnation:
        _forebear(connection, seen.incarnation, max(known or 0, seen.token))
    if step is Step.RESTORED and seen.generation >= own.generation:
        # What else goes on under the incarnation that was lost is refused from now on.
        last = seen.token if seen.incarnation == own.incarnation else 0
        _renew(connection, row, seen.generation + 1, here, last)
    return CaughtUp(step, own)


def _renew(
    connection: Connection, row: Any, generation: int, here: str, last_token: int = 0
) -> None:
    _forebear(connection, row.incarnation, max(row.token, last_token))
    fresh = {"incarnation": secrets.token_hex(8), "generation": generation, "place": here}
    connection.execute(update(Fence).values(**fresh))


def _forebear(connection: Connection, incarnation: str, token: int) -> None:
    """Known from now on, as the newest."""
    connection.execute(delete(Forebear).where(col(Forebear.incarnation) == incarnation))
    connection.execute(insert(Forebear).values(incarnation=incarnation, token=token))


def _row(connection: Connection) -> Any:
    return connection.execute(select(Fence.__table__).with_for_update()).one()  # type: ignore[attr-defined]  # SQLModel adds it at run time


def _standing(row: Any) -> Standing:
    return Standing(row.incarnation, row.generation, row.token, row.adopted)
