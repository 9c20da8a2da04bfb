"""Which rows stand for which others, where a run was planned by equivalence class. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.matrix.by_class import ByClass, Group
from orchestrator.signoff.case import Case
from orchestrator.variance.class_cover import settle
from orchestrator.variance.observation import Observation
from orchestrator.variance.spot import at_most


@dataclass(frozen=True)
class Standing:
    """How a row stands in its class, whose ``fingerprint`` it has.

    ``covered``: the row ``by`` ran in full and stands for it, for none of the ``drawn`` samples
    ``of`` the input set differs; then ``at_most`` so many of all differ, at the one-sided
    ``confidence``. ``left``: ``differing`` of them do, and it ran in full itself. ``alone``: they
    do, or its representative has no answer, and it did not (yet). ``representative``: it stands
    for others. ``spot``: the attempt that was the spot check.
    """

    standing: Literal["representative", "covered", "left", "alone"]
    fingerprint: str
    confidence: float
    by: str | None = None
    differing: int = 0
    drawn: int = 0
    of: int = 0
    at_most: int | None = None
    why: str = ""
    spot: str | None = None


def standings(
    by_class: ByClass | None, observations: Iterable[Observation], cases: Sequence[Case]
) -> dict[str, Standing]:
    """Row ID -> its standing, for rows of the run's groups."""
    if by_class is None:
        return {}
    seen = {o.cell: o for o in observations}
    rows = {cell.cell: case.id for case in cases for cell in case.cells}
    found: dict[str, Standing] = {}
    for group in by_class.groups:
        found |= _group(group, by_class.confidence, seen, rows)
    return found


def _group(
    group: Group, confidence: float, seen: Mapping[str, Observation], rows: Mapping[str, str]
) -> dict[str, Standing]:
    settled = settle(group, seen)
    covered = {c.spot: c.by for c in settled.covered}
    left = {each.spot: each for each in settled.left}
    found: dict[str, Standing] = {}
    for member in group.members:
        full, spot = seen.get(member.full), seen.get(member.spot)
        if spot is None or spot.samples is None:
            continue
        drawn, row, attempt = len(spot.samples), rows[member.spot], spot.attempt
        if member.spot in covered:
            by = covered[member.spot]
            of = len(seen[by].outputs[0].values)
            found[row] = Standing(
                "covered",
                group.fingerprint,
                confidence,
                rows[by],
                drawn=drawn,
                of=of,
                at_most=at_most(of, drawn, confidence),
                spot=attempt,
            )
            found[rows[by]] = Standing("representative", group.fingerprint, confidence)
        elif parted := left.get(member.spot):
            found[row] = Standing(
                "left" if full else "alone",
                group.fingerprint,
                confidence,
                rows[parted.of],
                differing=parted.k,
                drawn=parted.n,
                why=parted.why,
                spot=attempt,
            )
        elif full is None:
            why = f"its spot check is {spot.status}" if spot.status != "ok" else "nobody answered"
            found[row] = Standing("alone", group.fingerprint, confidence, why=why, spot=attempt)
    return found


def covered(standing: Standing, verdict: str) -> str:
    """The reason of a covered row; ``verdict``: of the row that stands for it."""
    return (
        f"{standing.by} ({verdict}) stands for it: none of {standing.drawn}"
        f" samples drawn differs, so at most {standing.at_most} of {standing.of} do"
        f" ({100 * standing.confidence:g} % confidence)"
    )
