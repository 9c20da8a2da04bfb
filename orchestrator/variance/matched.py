"""Matched pairs: answers to the same model and inputs in which exactly one factor differs.

What such a pair differs in, the factor alone has moved, unless a side does not even repeat itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from orchestrator.variance.agreement import Rater, distinct
from orchestrator.variance.answers import Answers, first
from orchestrator.variance.factors import FACTORS, Factors, changed
from orchestrator.variance.intervals import Rate, rate
from orchestrator.variance.pair import compare
from orchestrator.variance.tasks import Task, disagree


@dataclass(frozen=True)
class Elements:
    """Output elements ``different`` of ``compared``; ``max_lsb`` None where there are no codes."""

    different: int
    compared: int
    max_lsb: int | None


@dataclass(frozen=True)
class Worst:
    """The pair that decides most samples differently; of equals, the one that moves most codes."""

    a: str
    b: str
    a_value: str
    b_value: str
    disagreement: Rate


@dataclass(frozen=True)
class Moved:
    """What one factor alone moves, over ``pairs`` pairs of which ``identical`` are so bit for bit.

    Of the ``n`` samples that any pair compared: ``bits`` those whose bytes, ``decisions`` those
    whose decision differs in at least one pair; each sample counts once, however many pairs there
    are, so that the intervals are those of ``n`` independent samples. ``elements``: over all pairs.
    ``unsteady`` pairs have a side that did not repeat its own bytes: there the factor may be
    innocent.
    """

    factor: str
    pairs: int
    identical: int
    unsteady: int
    n: int
    bits: Rate
    decisions: Rate
    elements: Elements
    worst: Worst


Compare = Callable[[Rater, Rater], Elements]


def elements(a: Answers, b: Answers) -> Elements:
    """The samples that both answered. Raises TaskError when the outputs differ in shape."""
    n = min(a.n, b.n)
    found = compare(first(a, n), first(b, n))
    return Elements(found.elements_different, found.elements, found.max_lsb)


def matched(task: Task, raters: Sequence[Rater], compare: Compare) -> list[Moved]:
    """What each factor moves, in the order of FACTORS; factors without a pair are left out.

    Of attempts with equal factors, one for each distinct answer takes part.
    """
    answers = distinct(raters)
    steady = {f: len(rs) == 1 for f, rs in answers.items()}
    pairs: dict[str, list[tuple[Rater, Rater]]] = defaultdict(list)
    for f, g in combinations(answers, 2):
        factors = changed(f, g)
        if factors is not None and len(factors) == 1:
            pairs[factors[0]] += [(a, b) for a in answers[f] for b in answers[g]]
    return [_moved(task, f, pairs[f], steady, compare) for f in FACTORS if pairs[f]]


def _moved(
    task: Task,
    factor: str,
    pairs: Sequence[tuple[Rater, Rater]],
    steady: dict[Factors, bool],
    compare: Compare,
) -> Moved:
    n = max(min(a.n, b.n) for a, b in pairs)
    bits, decided = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    identical = unsteady = different = compared = 0
    lsb: int | None = None
    ranked = []
    for a, b in pairs:
        m = min(a.n, b.n)
        unlike = (a.hashes[:m] != b.hashes[:m]).any(axis=1)
        otherwise = disagree(task, a.decisions[:m], b.decisions[:m])
        bits[:m] |= unlike
        decided[:m] |= otherwise
        identical += not unlike.any()
        unsteady += not (steady[a.factors] and steady[b.factors])
        found = compare(a, b)
        different, compared = different + found.different, compared + found.compared
        if found.max_lsb is not None:
            lsb = max(lsb or 0, found.max_lsb)
        ranked.append(((int(otherwise.sum()), int(unlike.sum()), m), (a, b)))
    (count, _, m), (a, b) = max(ranked, key=lambda r: r[0])
    return Moved(
        factor=factor,
        pairs=len(pairs),
        identical=identical,
        unsteady=unsteady,
        n=n,
        bits=rate(int(bits.sum()), n),
        decisions=rate(int(decided.sum()), n),
        elements=Elements(different, compared, lsb),
        worst=Worst(a.attempt, b.attempt, _value(a, factor), _value(b, factor), rate(count, m)),
    )


def _value(rater: Rater, factor: str) -> str:
    f = rater.factors
    named = {
        "core": f"{f.unit} ({f.core})",
        "class": f.device_class,
        "runtime": f"{f.runtime} {f.version}",
        "version": f"{f.version} build {(f.build or '?')[:8]}",
    }
    return named.get(factor) or str(getattr(f, factor))
