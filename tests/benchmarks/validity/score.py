"""Cases in, rates out: what each method finds, and whether the whole names it right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.attribution.evidence import Evidence, Mechanism
from orchestrator.attribution.rules import attribute
from orchestrator.variance.intervals import Rate, rate, tango_lower, tango_upper
from tests.benchmarks.validity.case import Case

Method = Callable[[Evidence], bool]
FOUND_SHARE = 0.9


def by_accuracy(e: Evidence) -> bool:
    """What an accuracy benchmark sees: a paired difference whose 95 % interval excludes zero."""
    lost, gained, n = e.signature.lost, e.signature.gained, e.signature.pair.n
    if lost is None or gained is None:
        return False
    return tango_lower(gained, lost, n, 0.975) > 0 or tango_upper(gained, lost, n, 0.975) < 0


def by_decisions(e: Evidence) -> bool:
    """Two devices, sample by sample: any decision differs."""
    return e.signature.pair.disagreement > 0


def by_bits(e: Evidence) -> bool:
    """Two devices, sample by sample: any byte differs."""
    return not e.signature.identical


def by_all(e: Evidence) -> bool:
    return attribute(e).mechanism is not Mechanism.IDENTICAL


METHODS: dict[str, Method] = {
    "accuracy": by_accuracy,
    "decisions": by_decisions,
    "bits": by_bits,
    "all": by_all,
}


@dataclass(frozen=True)
class Score:
    """Of one kind. ``flagged``: method -> cases it flags; ``named``: mechanism and factor right,

    of the defects that were found; None of a null. ``mechanism``: that alone.
    ``smallest``: least severity from which on FOUND_SHARE are found by all methods together.
    """

    kind: str
    truth: str
    real: bool
    flagged: dict[str, Rate]
    named: Rate | None
    mechanism: Rate | None
    smallest: float | None
    missed: tuple[str, ...]


def score(cases: Sequence[Case]) -> Score:
    """``cases`` of one kind, one at least."""
    first = cases[0]
    flagged = {
        name: rate(sum(method(c.evidence) for c in cases), len(cases))
        for name, method in METHODS.items()
    }
    if first.mechanism is None:
        wrong = tuple(_said(c) for c in cases if by_all(c.evidence))
        return Score(first.kind, "nothing", first.real, flagged, None, None, None, wrong)
    found = [c for c in cases if by_all(c.evidence)]
    named = [c for c in found if right(c)]
    alone = [c for c in found if attribute(c.evidence).mechanism is c.mechanism]
    missed = tuple(_said(c) for c in cases if not right(c))
    return Score(
        first.kind,
        f"{first.mechanism} × {first.factor}",
        first.real,
        flagged,
        rate(len(named), len(found)),
        rate(len(alone), len(found)),
        smallest(cases),
        missed,
    )


def right(case: Case) -> bool:
    told = attribute(case.evidence)
    return told.mechanism is case.mechanism and case.factor in (told.factors or ())


def smallest(cases: Iterable[Case]) -> float | None:
    ordered = sorted(cases, key=lambda c: -c.severity)
    best, found = None, 0
    for number, case in enumerate(ordered, 1):
        found += by_all(case.evidence)
        if found >= FOUND_SHARE * number:
            best = case.severity
    return best


def pooled(rates: Iterable[Rate]) -> Rate:
    every = list(rates)
    return rate(sum(r.k for r in every), sum(r.n for r in every))


def _said(case: Case) -> str:
    told = attribute(case.evidence)
    factors = ", ".join(told.factors or ()) or "-"
    return f"{told.mechanism} × {factors} at severity {case.severity:g}"
