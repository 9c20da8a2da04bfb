"""Cases in, rates out: what each method finds, and whether it names it right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from orchestrator.diagnosis.taps import CASCADE, RANGE_COLLAPSE, UNSOUND
from orchestrator.variance.intervals import Rate, rate
from tests.benchmarks.validity.case import Case, Undrawn
from tests.benchmarks.validity.draws import Planter
from tests.benchmarks.validity.inner import EVERYWHERE
from tests.benchmarks.validity.methods import METHODS, Heard, Said, hear
from tests.benchmarks.validity.world import Random, World

FOUND_SHARE = 0.9
MOST_DRAWS = 100
"""Draws in a row without an effect, after which a kind counts as impossible here.

Of a kind that one draw in ten shows, so many miss once in 40,000.
"""
FINDINGS = (RANGE_COLLAPSE, CASCADE, UNSOUND)


@dataclass(frozen=True)
class Result:
    """One case, and what each method said of it.

    ``named``: method -> whether what it says is right, of those methods that said something and
    could say it (see `right`).
    """

    kind: str
    truth: str
    null: bool
    real: bool
    severity: float
    stated: float
    flagged: dict[str, bool]
    named: dict[str, bool]
    said: str


def results(
    planter: Planter, world: World, random: Random, count: int
) -> tuple[list[Result], Undrawn | None]:
    """``count`` cases; with the last draw that made none where this machine shows fewer.

    A draw in which two devices do not differ though they should is no case.
    """
    found: list[Result] = []
    none: list[Undrawn] = []
    for drawn in planter(world, random):
        if isinstance(drawn, Undrawn):
            none.append(drawn)
        elif drawn.mechanism is None or not drawn.pair or _differs(drawn):
            none = []
            found.append(judged(drawn, hear(drawn)))
        else:
            none.append(Undrawn(drawn.kind, "no byte differs"))
        if len(found) == count or len(none) == MOST_DRAWS:
            break
    if len(found) == count:
        return found, None
    last = none[-1]
    many = f"{len(found)} of {count} cases, then none in {len(none)} draws: " if found else ""
    return found, replace(last, why=f"{many}{last.why}")


def _differs(case: Case) -> bool:
    same = case.evidence.signature.identical and case.a.shown.inputs == case.b.shown.inputs
    return not same or any(s.mismatches for s in (case.a.shown, case.b.shown))


def judged(case: Case, heard: Heard) -> Result:
    said = {name: heard.by(name) for name in METHODS}
    told = {name: right(case, name, said[name]) for name in METHODS if said[name]}
    where = case.where or "one"
    return Result(
        case.kind,
        f"{case.mechanism} × {where}" if case.mechanism else "nothing",
        case.mechanism is None,
        case.real,
        case.severity,
        case.stated,
        {name: bool(said[name]) for name in METHODS},
        {name: ok for name, ok in told.items() if ok is not None},
        "; ".join(f"{s.what} × {', '.join(s.where) or '-'}" for s in said["all"]) or "nothing",
    )


def right(case: Case, method: str, said: Sequence[Said]) -> bool | None:
    """Whether mechanism and place are those planted; None where the method names neither.

    An accuracy benchmark names nothing. Layers of two devices name operators, which is right or
    wrong only where an operator was spoilt; that the plans differ is a mechanism. Everything
    together is judged by what stands first.
    """
    if case.mechanism is None or method == "accuracy":
        return None
    first = said[0]
    if first.what == UNSOUND:  # the operator whose constants were spoilt, whatever came of it
        return first.where == (str(case.place),)
    if first.what in FINDINGS:
        findings = [s for s in said if s.what in FINDINGS]
        there = all(case.where in (*s.where, EVERYWHERE) for s in findings)
        return there and any(s.what == case.mechanism for s in findings)
    if first.what == "operator":
        return None if case.place is None else first.where == (str(case.place),)
    if first.what == "plan" and method == "layers":
        return case.mechanism == "plan"
    return first.what == case.mechanism and case.where in first.where


@dataclass(frozen=True)
class Score:
    """Scores of one kind, by method.

    ``found``/``named``: rates; ``smallest``: least severity from which on FOUND_SHARE are found,
    None where there is none; ``above``: found of those at or above the stated severity.
    """

    kind: str
    truth: str
    real: bool
    null: bool
    stated: float
    found: dict[str, Rate]
    above: dict[str, Rate]
    named: dict[str, Rate]
    smallest: dict[str, float | None]
    missed: tuple[str, ...]


def score(found: Sequence[Result]) -> Score:
    """``found`` of one kind, one at least."""
    one = found[0]
    truths = {r.truth for r in found}
    return Score(
        one.kind,
        one.truth if len(truths) == 1 else one.truth.partition(" × ")[0],
        one.real,
        one.null,
        one.stated,
        {m: _rate(r.flagged[m] for r in found) for m in METHODS},
        {m: _rate(r.flagged[m] for r in found if r.severity >= r.stated) for m in METHODS},
        {m: _rate(r.named[m] for r in found if m in r.named) for m in METHODS},
        {m: None if one.null else smallest(found, m) for m in METHODS},
        tuple(
            f"{r.said} (severity {r.severity:.3g})"
            for r in found
            if (r.flagged["all"] if r.null else not r.named.get("all", False))
            and (r.null or r.severity >= r.stated)
        ),
    )


def smallest(found: Iterable[Result], method: str) -> float | None:
    """The least severity such that of all cases at least so severe FOUND_SHARE are found."""
    every = list(found)
    for severity in sorted({r.severity for r in every}):
        some = [r.flagged[method] for r in every if r.severity >= severity]
        if sum(some) >= FOUND_SHARE * len(some):
            return severity
    return None


def pooled(rates: Iterable[Rate]) -> Rate:
    every = list(rates)
    return rate(sum(r.k for r in every), sum(r.n for r in every))


def of(scores: Iterable[Score], pick: Callable[[Score], Rate]) -> Rate:
    return pooled(pick(s) for s in scores)


def _rate(flags: Iterable[bool]) -> Rate:
    known = list(flags)
    return rate(sum(known), len(known))
