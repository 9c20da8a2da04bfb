"""May a store go on from what a device remembers of it? Pure: no I/O, no SQL.

Why it is so: docs/decisions/0019-fences-and-incarnations.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from device_worker.fence import LARGEST
from orchestrator.errors import InfraError

TOKEN_CEILING = 2_000_000_000
"""A device's memory raises the store's counter up to here and no further.

A hostile device may claim any number. The counter needs no more than to rise: what lets a store in
above a larger token is its incarnation.
"""
LATER_GENERATIONS = 1000
"""So many incarnations a store may have lost by being restored; more is no restored backup."""

_NAME, _PLACE = 64, 4500


@dataclass(frozen=True)
class Remembered:
    """The last grant that a device let in for a farm: under which incarnation of its store, where.

    ``incarnation`` is "" and ``generation`` 0 where an older Assay left it there.
    """

    incarnation: str
    generation: int
    token: int
    place: str

    @classmethod
    def of(cls, data: Any) -> Remembered:
        """What a worker says. Raises ValueError for what cannot be it."""
        if not isinstance(data, dict):
            raise ValueError("no object")
        try:
            found = cls(**data)
        except TypeError as error:
            raise ValueError(str(error)) from None
        for name, limit in (("incarnation", _NAME), ("place", _PLACE)):
            text = getattr(found, name)
            if not isinstance(text, str) or len(text) > limit:
                raise ValueError(f"its {name} is none")
        for name in ("generation", "token"):
            number = getattr(found, name)
            if type(number) is not int or not 0 <= number <= LARGEST:
                raise ValueError(f"its {name} is none")
        return found


@dataclass(frozen=True)
class Refusal:
    """Why a device did not let a lease in.

    What it remembers, or under which other name of the same farm another run is driving it now.
    """

    remembered: Remembered | None = None
    holder: str | None = None


class RefusedError(InfraError):
    """The device's fence did not let the lease in. ``refusal``: why."""

    refusal = Refusal()


@dataclass(frozen=True)
class Standing:
    """The store as it is.

    ``token``: its counter. ``adopted``: the generation in which somebody last decided that this
    copy goes on, 0 for never.
    """

    incarnation: str
    generation: int
    token: int
    adopted: int = 0


class Step(StrEnum):
    """What a store may say of a grant that a device remembers.

    ``followed``: the store knows of that grant. ``restored``: it lost it, and no other copy goes on
    from there. ``copied``: another copy of the store may.
    """

    FOLLOWED = "followed"
    RESTORED = "restored"
    COPIED = "copied"


def judge(own: Standing, seen: Remembered, *, refused: int, known: int | None, gone: bool) -> Step:
    """What a refused grant means for this store.

    ``refused``: the token that the device did not let in. ``known``: the last one under
    ``seen.incarnation`` that the store knows of, None for none. ``gone``: the store that was at
    ``seen.place`` is certainly not there any more.
    """
    if seen.incarnation == own.incarnation:
        # The very token that was refused the device has of somebody else.
        known = None if seen.token == refused else own.token
    if known is not None and seen.token <= known:
        return Step.FOLLOWED
    if seen.incarnation != own.incarnation and seen.generation < own.adopted:
        return Step.FOLLOWED
    if seen.generation > own.generation + LATER_GENERATIONS:
        return Step.COPIED
    return Step.RESTORED if gone else Step.COPIED


def raised(counter: int, token: int) -> int:
    """The store's counter once it has heard of ``token``."""
    return max(counter, token) if token <= TOKEN_CEILING else counter
