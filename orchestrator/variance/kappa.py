"""Agreement beyond chance. Pure: decisions as `tasks.decisions` gives them, int64, in; numbers out.

A NO_DECISION agrees with nothing, another NO_DECISION included, neither as observed nor by chance.
Nothing here makes a table of categories by categories, so that 10,000 classes cost what two do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from orchestrator.variance.intervals import Estimate, clopper_pearson
from orchestrator.variance.lattice import Array
from orchestrator.variance.tasks import NO_DECISION

FEW = 10
"""The fewest samples on either side (all raters agree, or not) for an interval.

With fewer, the normal approximation of kappa's distribution covers too little: at no disagreement
at all its interval has no width.
"""


@dataclass(frozen=True)
class Kappa(Estimate):
    """``value`` (observed - chance) / (1 - chance) over ``n`` samples and ``raters``.

    ``observed`` is the share of agreeing pairs of raters; ``value`` is None, and so is its
    interval, where chance alone makes all agree (constant decisions). ``interval``: how the
    two-sided [low, high] was made, "asymptotic" by the variance that the function names, "exact"
    from the Clopper-Pearson bounds of the samples on which not all agree (see FEW), each taken to
    lose the largest (low) or smallest (high) observed share of its pairs, with ``chance`` held.
    """

    observed: float
    chance: float
    raters: int
    interval: Literal["asymptotic", "exact"]


def cohen(a: Array, b: Array, confidence: float = 0.95) -> Kappa:
    """Cohen's kappa (1960) of two raters, [n] each, n >= 1.

    Variance: Fleiss, Cohen & Everitt (1969), Psychol. Bull. 72:323, formula 13, written as the
    variance of each sample's part in kappa. Raises ValueError for no samples or unequal numbers.
    """
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"not two lists of decisions: {a.shape}, {b.shape}")
    (left, right), size = _dense([a, b])
    none = left == size
    agree = ((left == right) & ~none).astype(np.float64)
    share_a, share_b = _shares(left, size), _shares(right, size)
    chance = float(share_a[:-1] @ share_b[:-1])
    by_chance = share_b[left] + share_a[right]
    return _kappa(agree, by_chance, chance, 2, confidence)


def fleiss(raters: Array, confidence: float = 0.95) -> Kappa:
    """Fleiss' kappa (1971), ``raters`` [raters, n] with two raters at least and n >= 1.

    Variance: Gwet (2021), Educ. Psychol. Meas. 81:781 (large samples, raters given), but for its
    n - 1, which is n here as in ``cohen``. Raises ValueError for other shapes.
    """
    if raters.ndim != 2 or len(raters) < 2 or not raters.shape[1]:
        raise ValueError(f"not decisions of two or more raters: {raters.shape}")
    rows, size = _dense(list(raters))
    r, n = raters.shape
    coded = np.stack(rows)
    same = np.zeros(n)
    for row in rows:
        same += ((coded == row) & (row != size)).sum(axis=0)
    decided = (coded != size).sum(axis=0)
    agree = (same - decided) / (r * (r - 1))
    share = _shares(coded.ravel(), size)
    chance = float(share[:-1] @ share[:-1])
    by_chance = 2 * share[coded].mean(axis=0)
    return _kappa(agree, by_chance, chance, r, confidence)


def _kappa(
    agree: NDArray[np.float64],
    by_chance: NDArray[np.float64],
    chance: float,
    raters: int,
    confidence: float,
) -> Kappa:
    """Kappa with its interval, from what each sample adds.

    ``agree`` [n]: share of each sample's pairs that agree; ``by_chance`` [n]: what the sample's
    decisions add to the chance agreement, whose mean is 2 * ``chance``.
    """
    n, observed = len(agree), float(agree.mean())
    if 1 - chance < 1e-12:
        return Kappa(None, n, None, None, observed, chance, raters, "exact")
    kappa = (observed - chance) / (1 - chance)
    split = agree < 1
    if min(int(split.sum()), n - int(split.sum())) < FEW:
        low, high = _exact(agree, split, chance, confidence)
        return Kappa(kappa, n, low, high, observed, chance, raters, "exact")
    part = agree - (1 - kappa) * by_chance
    half = float(ndtri((1 + confidence) / 2) * part.std() / ((1 - chance) * math.sqrt(n)))
    low, high = max(-1.0, kappa - half), min(1.0, kappa + half)
    return Kappa(kappa, n, low, high, observed, chance, raters, "asymptotic")


def _exact(
    agree: NDArray[np.float64], split: NDArray[np.bool_], chance: float, confidence: float
) -> tuple[float, float]:
    lost = 1 - agree[split]
    most, least = (float(lost.max()), float(lost.min())) if len(lost) else (1.0, 0.0)
    low, high = clopper_pearson(int(split.sum()), len(agree), confidence)
    bounds = [(1 - share - chance) / (1 - chance) for share in (high * most, low * least)]
    return max(-1.0, bounds[0]), min(1.0, bounds[1])


def _dense(rows: list[Array]) -> tuple[list[NDArray[np.int64]], int]:
    """Each row with its categories numbered from 0, and how many there are.

    That number stands for NO_DECISION.
    """
    known = np.unique(np.concatenate(rows))
    known = known[known != NO_DECISION]
    numbered = [np.searchsorted(known, row) for row in rows]
    return [
        np.where(r == NO_DECISION, len(known), c) for r, c in zip(rows, numbered, strict=True)
    ], (len(known))


def _shares(coded: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Share of each category, [size + 1]; nothing is ever taken to agree with a NO_DECISION."""
    share: NDArray[np.float64] = np.bincount(coded, minlength=size + 1) / len(coded)
    share[size] = 0.0
    return share
