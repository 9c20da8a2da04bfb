"""Attribute agreement analysis: the form of Gauge R&R that fits decisions.

AIAG, Measurement Systems Analysis, 4th ed. 2010, ch. III.C. An appraiser is a way of answering, a
part is a sample.

Within: one unit again, all else equal (repeatability). Between: one answer for each unit of a
class, each class, each runtime, each version, all else equal (reproducibility). Against: each
answer against the reference's, or against the truth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.factors import SETTINGS, Factors
from orchestrator.variance.fleet import unanimous
from orchestrator.variance.intervals import Rate, rate
from orchestrator.variance.kappa import Kappa, cohen, fleiss
from orchestrator.variance.lattice import Array
from orchestrator.variance.tasks import Mask, Regression, Task, correct, disagree


@dataclass(frozen=True, eq=False)
class Rater:
    """One attempt at a model file on an input set, whose raters differ in nothing else.

    ``decisions`` as `tasks.decisions` gives them, ``hashes`` uint8 [n, 32] of each sample's output
    bytes, ``time`` any number that orders attempts. A shorter one answered the first n samples.
    """

    attempt: str
    factors: Factors
    decisions: Array
    hashes: NDArray[np.uint8]
    time: float = 0.0

    @property
    def n(self) -> int:
        return len(self.decisions)


@dataclass(frozen=True)
class Agreement:
    """Several raters on their first ``n`` samples.

    ``level``: within, units, classes, runtimes, versions. ``who``: what tells the raters apart, in
    the order of ``attempts``; ``fixed``: the factors that they share. ``alike``: samples that all
    decide alike. ``identical``: whose output bytes are all equal. ``kappa``: Fleiss', None for
    regression, whose agreement has no categories.
    """

    level: str
    fixed: tuple[tuple[str, str], ...]
    who: tuple[str, ...]
    attempts: tuple[str, ...]
    n: int
    alike: Rate
    identical: Rate
    kappa: Kappa | None


@dataclass(frozen=True)
class Against:
    """One rater against one other list of decisions; ``kappa`` Cohen's, None for regression."""

    attempt: str
    factors: Factors
    n: int
    agree: Rate
    kappa: Kappa | None


Name = Callable[[Factors], str | None]

_WHERE = ("device_class", "unit", "core")
LEVELS: dict[str, tuple[tuple[str, ...], Name]] = {
    "units": (("device_class", "core", "runtime", "version", *SETTINGS), lambda f: f.unit),
    "classes": (("runtime", "version", *SETTINGS), lambda f: f.device_class),
    "runtimes": ((*_WHERE, *SETTINGS), lambda f: f.runtime),
    "versions": ((*_WHERE, "runtime", *SETTINGS), lambda f: f.version),
}
"""Level -> the factors that its raters share, and what tells them apart.

Of several attempts with one name, the longest and then the newest speaks; of a class, its first
unit by name. That a unit may speak for its class is what the level "units" says.
"""


def within(task: Task, raters: Sequence[Rater]) -> list[Agreement]:
    """Attempts with equal factors, wherever there are two or more."""
    groups: dict[Factors, list[Rater]] = defaultdict(list)
    for rater in sorted(raters, key=lambda r: r.time):
        groups[rater.factors].append(rater)
    found = []
    for factors, same in groups.items():
        fixed = tuple((k, str(v)) for k, v in vars(factors).items() if v is not None)
        for some in _by_length(same):
            found.append(_agreement(task, "within", fixed, [r.attempt[:8] for r in some], some))
    return found


def between(task: Task, raters: Sequence[Rater]) -> list[Agreement]:
    """Every level of LEVELS, in every setting in which it has two names or more.

    A rater with an unknown among a level's factors takes no part in it.
    """
    found = []
    for level, (shared, name) in LEVELS.items():
        groups: dict[tuple[str, ...], dict[str, Rater]] = defaultdict(dict)
        for rater in sorted(raters, key=_speaks):
            key, who = [getattr(rater.factors, f) for f in shared], name(rater.factors)
            if who is not None and None not in key:
                groups[tuple(map(str, key))].setdefault(who, rater)
        for values, named in sorted(groups.items()):
            names = {id(rater): who for who, rater in named.items()}
            fixed = tuple(zip(shared, values, strict=True))
            for some in _by_length([named[who] for who in sorted(named)]):
                found.append(_agreement(task, level, fixed, [names[id(r)] for r in some], some))
    return found


def distinct(raters: Sequence[Rater]) -> dict[Factors, list[Rater]]:
    """Factors -> an attempt for each different answer, the longest first.

    An answer that is the beginning of another is not different.
    """
    found: dict[Factors, list[Rater]] = defaultdict(list)
    for rater in sorted(raters, key=lambda r: (-r.n, r.time)):
        known = found[rater.factors]
        if not any(_begins(k, rater) for k in known):
            known.append(rater)
    return found


def _begins(longer: Rater, shorter: Rater) -> bool:
    return np.array_equal(longer.hashes[: shorter.n], shorter.hashes)


def against(task: Task, raters: Sequence[Rater], reference: Rater) -> list[Against]:
    """Each distinct answer but ``reference`` against it, over the samples that both gave."""
    return [
        _against(task, r, reference.decisions, ~_differ(task, r.decisions, reference.decisions))
        for same in distinct(raters).values()
        for r in same
        if r.factors != reference.factors or not _begins(reference, r)
    ]


def against_truth(task: Task, raters: Sequence[Rater], labels: Array) -> list[Against]:
    """Each distinct answer against the labels [samples, ...] as `tasks.check_labels` accepts."""
    found = []
    for r in (r for same in distinct(raters).values() for r in same):
        truth = labels[: r.n].reshape(r.decisions.shape)
        found.append(_against(task, r, truth, correct(task, r.decisions, truth)))
    return found


def _speaks(rater: Rater) -> tuple[int, str, float]:
    return (-rater.n, rater.factors.unit, -rater.time)


def _by_length(raters: Sequence[Rater]) -> Iterator[list[Rater]]:
    """Those with the most samples, then with the shorter ones too: two or more each time."""
    seen = 1
    for n in sorted({r.n for r in raters}, reverse=True):
        some = [r for r in raters if r.n >= n]
        if len(some) > seen:
            seen = len(some)
            yield some


def _agreement(
    task: Task,
    level: str,
    fixed: tuple[tuple[str, str], ...],
    who: Sequence[str],
    raters: Sequence[Rater],
) -> Agreement:
    n = min(r.n for r in raters)
    rows = [r.decisions[:n] for r in raters]
    same = np.ones(n, dtype=bool)
    for r in raters[1:]:
        same &= (r.hashes[:n] == raters[0].hashes[:n]).all(axis=1)
    return Agreement(
        level=level,
        fixed=fixed,
        who=tuple(who),
        attempts=tuple(r.attempt for r in raters),
        n=n,
        alike=rate(int(unanimous(task, rows).sum()), n),
        identical=rate(int(same.sum()), n),
        kappa=None if isinstance(task, Regression) else fleiss(np.stack(rows)),
    )


def _against(task: Task, rater: Rater, other: Array, agree: Mask) -> Against:
    n = len(agree)
    kappa = None
    if not isinstance(task, Regression):
        kappa = cohen(rater.decisions[:n], other[:n].astype(np.int64))
    return Against(rater.attempt, rater.factors, n, rate(int(agree.sum()), n), kappa)


def _differ(task: Task, a: Array, b: Array) -> Mask:
    n = min(len(a), len(b))
    return disagree(task, a[:n], b[:n])
