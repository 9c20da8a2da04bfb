"""Spot checks against those who ran in full: who is covered, who leaves the class, who runs next.

Pure: state in, decision out. A coordinator asks it what to queue, a sign-off what came of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.matrix.by_class import Group, Member
from orchestrator.matrix.key import stale
from orchestrator.variance.observation import Observation
from orchestrator.variance.repeatability import unlike


@dataclass(frozen=True)
class Covered:
    """The spot check of a member found no difference to the cell ``by``, which ran in full."""

    spot: str
    by: str


@dataclass(frozen=True)
class Left:
    """The spot check parted from the cell ``of``; ``k`` of ``n`` samples drawn differ.

    Another one may cover its unit all the same.
    """

    spot: str
    of: str
    k: int
    n: int
    why: str


@dataclass(frozen=True)
class Settled:
    """``queue``: IDs of full cells to run now, because nobody stands for their unit."""

    covered: tuple[Covered, ...] = ()
    left: tuple[Left, ...] = ()
    queue: tuple[str, ...] = ()


def settle(group: Group, seen: Mapping[str, Observation]) -> Settled:
    """``seen``: the run's cells by their IDs, as they stand.

    A member is covered by the first that ran in full and answers as it does. One that parts from
    all of them runs in full itself, one member at a time, since it may stand for the next.
    """
    ran = [o for m in group.members if (o := seen.get(m.full)) is not None]
    answered = [o for o in ran if o.status == "ok" and o.codes_valid]
    waiting = any(o.status == "pending" for o in ran)
    covered: list[Covered] = []
    left: list[Left] = []
    queue: list[str] = []
    for member, spot in _checked(group.members, seen):
        others = [o for o in answered if o.cell != member.full]
        parted = [_parted(group, spot, full) for full in others]
        left += [found for found in parted[:1] if found is not None]
        if member.full in seen:
            continue
        if None in parted:
            covered.append(Covered(spot.cell, others[parted.index(None)].cell))
        elif not waiting and not queue:
            queue.append(member.full)
    return Settled(tuple(covered), tuple(left), tuple(queue))


def _checked(
    members: Iterable[Member], seen: Mapping[str, Observation]
) -> Iterable[tuple[Member, Observation]]:
    """Members with an answered spot check; those that failed tell of themselves."""
    for member in members:
        spot = seen.get(member.spot)
        if spot is not None and spot.status == "ok" and spot.codes_valid:
            yield member, spot


def _parted(group: Group, spot: Observation, full: Observation) -> Left | None:
    """Why ``full`` does not stand for the unit of ``spot``, or None."""
    found = unlike(spot, full)
    k, n = (found.k, found.n) if found else (0, 0)
    if k or not n:
        why = f"{k} of {n} samples drawn differ from {full.row.device}"
    elif told := _stale(group, spot) or _stale(group, full):
        why = told
    elif spot.fallbacks != full.fallbacks:
        why = f"another backend computed than on {full.row.device}"
    else:
        return None
    return Left(spot.cell, full.cell, k, n, why)


def _stale(group: Group, seen: Observation) -> str | None:
    """Why the fingerprint of its unit does not speak for an answer, or None."""
    unit = seen.row.device
    # Runs that an older Assay planned know the version alone.
    taken = group.keys.get(unit) or seen.key.model_copy(update={"version": group.version})
    return stale(unit, seen.key, taken)
