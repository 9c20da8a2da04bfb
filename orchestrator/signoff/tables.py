"""Comparisons among all rows of one model file: reported, never gated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from orchestrator.signoff.case import Case
from orchestrator.signoff.result import Count, FleetResult, PairResult, VsReference
from orchestrator.variance import fleet, pair
from orchestrator.variance.answers import Answers
from orchestrator.variance.intervals import rate
from orchestrator.variance.pair import Pair
from orchestrator.variance.tasks import TaskError

Compare = Callable[[Answers, Answers], Pair]


def comparer() -> Compare:
    """pair.compare, remembering by content: most rows of a file hold equal bytes."""
    known: dict[tuple[str, str], Pair] = {}

    def compare(a: Answers, b: Answers) -> Pair:
        key = (a.digest, b.digest)
        if key not in known:
            known[key] = pair.compare(a, b)
        return known[key]

    return compare


def vs_reference(found: Pair, confidence: float) -> VsReference:
    return VsReference(
        n=found.n,
        bit_exact=rate(found.bit_exact, found.n, confidence),
        elements_different=found.elements_different / found.elements if found.elements else None,
        max_lsb=found.max_lsb,
        lsb_histogram=found.lsb_histogram,
        mean_signed_lsb=found.mean_signed_lsb,
        disagreement=rate(found.disagreement, found.n, confidence),
        near_tie=_near_tie(found),
    )


def table(
    rows: Sequence[Case], compare: Compare, confidence: float
) -> tuple[list[PairResult], FleetResult | None]:
    """``rows``: of one group, in order of id. Rows that do not fit each other give no pair."""
    answered = [(case, case.answers) for case in rows if case.answers is not None]
    pairs = []
    for (a, left), (b, right) in combinations(answered, 2):
        try:
            found = compare(left, right)
        except TaskError:
            continue  # G6 of the misfit says so; a pair of different shapes has no rate
        pairs.append(_pair(a, b, found, confidence))
    if not answered:
        return pairs, None
    try:
        spread = fleet.spread([found for _, found in answered], confidence)
    except TaskError:
        return pairs, None
    first = answered[0][0].row
    attempts = tuple(dict.fromkeys(x for case, _ in answered for x in case.clean_attempts))
    worst = max(pairs, key=lambda p: p.disagreement.k, default=None)
    return pairs, FleetResult(first.model, first.file, first.inputs, spread, worst, attempts)


def _pair(a: Case, b: Case, found: Pair, confidence: float) -> PairResult:
    return PairResult(
        model=a.row.model,
        file=a.row.file,
        inputs=a.row.inputs,
        a=a.id,
        b=b.id,
        n=found.n,
        bit_exact_rate=found.bit_exact / found.n,
        max_lsb=found.max_lsb,
        lsb_histogram=found.lsb_histogram,
        disagreement=rate(found.disagreement, found.n, confidence),
        near_tie=_near_tie(found),
        attempts=(*a.clean_attempts, *b.clean_attempts),
    )


def _near_tie(found: Pair) -> Count | None:
    return None if found.near_tie is None else Count(found.near_tie, found.disagreement)
