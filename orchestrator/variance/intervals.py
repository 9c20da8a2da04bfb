"""Intervals and tests on counts, and on means. Pure.

Display uses two-sided 95 % intervals; gates use one-sided 95 % bounds, which are a different
(tighter) pair of numbers for the same data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc, betainc, betaincinv, ndtri, stdtrit

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """``k`` events in ``n`` trials with a two-sided Clopper-Pearson interval [low, high].

    ``rate`` is k / n, None when n is 0; the interval is then [0, 1]: nothing is known.
    """

    k: int
    n: int
    rate: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """``value`` of ``n`` samples with a two-sided interval; None where nothing is known."""

    value: float | None
    n: int
    low: float | None
    high: float | None


def rate(k: int, n: int, confidence: float = 0.95) -> Rate:
    low, high = clopper_pearson(k, n, confidence)
    return Rate(int(k), int(n), k / n if n else None, low, high)


def mean(values: Floats, confidence: float = 0.95) -> Estimate:
    """Mean of the finite ones of ``values`` [n] with Student's t interval, not cut at any bound."""
    known = values[np.isfinite(values)]
    n = len(known)
    if n < 2:
        return Estimate(float(known[0]) if n else None, n, None, None)
    centre, error = float(known.mean()), float(known.std(ddof=1)) / math.sqrt(n)
    half = float(stdtrit(n - 1, 1 - (1 - confidence) / 2)) * error
    return Estimate(centre, n, centre - half, centre + half)


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided exact interval for a binomial proportion (Clopper & Pearson 1934)."""
    one_sided = 1 - (1 - confidence) / 2
    return lower_bound(k, n, one_sided), upper_bound(k, n, one_sided)


def lower_bound(k: int, n: int, confidence: float = 0.95) -> float:
    """One-sided exact lower bound: the p with P(X >= k | n, p) = 1 - confidence; 0 when k is 0."""
    _check(k, n, confidence)
    return 0.0 if k == 0 else float(betaincinv(k, n - k + 1, 1 - confidence))


def upper_bound(k: int, n: int, confidence: float = 0.95) -> float:
    """One-sided exact upper bound: the p with P(X <= k | n, p) = 1 - confidence; 1 when k is n."""
    _check(k, n, confidence)
    return 1.0 if k == n else float(betaincinv(k + 1, n - k, confidence))


def p_above(k: int, n: int, limit: float) -> float:
    """P(X >= k | n, limit): small values say that the true rate lies above ``limit``.

    Below 1 - confidence exactly where lower_bound(k, n, confidence) exceeds ``limit``.
    """
    _check(k, n, 0.95)
    return 1.0 if k == 0 else float(betainc(k, n - k + 1, limit))


def samples_needed(limit: float, confidence: float = 0.95) -> int:
    """Smallest n at which zero events put the one-sided upper bound at or below ``limit``.

    Solves (1 - limit)^n <= 1 - confidence; about 3 / limit at 95 %.
    """
    if limit >= 1:
        return 1
    if limit <= 0:
        raise ValueError("no number of samples bounds a rate by zero")
    guess = math.ceil(math.log(1 - confidence) / math.log1p(-limit))
    return next(
        n for n in range(max(1, guess - 1), guess + 3) if upper_bound(0, n, confidence) <= limit
    )


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided Wilson score interval (Wilson 1927), for display; shorter than the exact one."""
    _check(k, n, confidence)
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(1 - (1 - confidence) / 2))
    p, w = k / n, z * z / n
    centre = (p + w / 2) / (1 + w)
    half = z * math.sqrt(p * (1 - p) / n + w / (4 * n)) / (1 + w)
    low = 0.0 if k == 0 else centre - half
    return low, 1.0 if k == n else centre + half


def tango_lower(gained: int, lost: int, n: int, confidence: float = 0.95) -> float:
    """One-sided score bound for a paired difference (Tango 1998, Stat. Med. 17:891).

    ``gained`` pairs went wrong -> right and ``lost`` right -> wrong among ``n``; the difference is
    (gained - lost) / n. The bound is the smallest difference d0 whose score test
    (gained - lost - n d0) / sd(d0) stays below z, sd using the constrained maximum likelihood
    estimate of the lost share. Two-sided intervals at level L are the two bounds at (1 + L) / 2.
    """
    if min(gained, lost) < 0 or gained + lost > n or not 0.5 < confidence < 1:
        raise ValueError(f"not a paired table: gained={gained} lost={lost} n={n} at {confidence}")
    if n == 0 or lost == n:
        return -1.0
    z = float(ndtri(confidence))

    def excess(d0: float) -> float:
        return gained - lost - n * d0 - z * math.sqrt(_tango_variance(gained, lost, n, d0))

    # The estimate itself is a false root where its variance is zero (no discordant pairs).
    return float(brentq(excess, -1.0, (gained - lost) / n - 1e-12, xtol=1e-14))


@dataclass(frozen=True)
class Difference:
    """(``gained`` - ``lost``) / ``n`` of paired outcomes with Tango's two-sided interval."""

    gained: int
    lost: int
    n: int
    difference: float | None
    low: float
    high: float


def paired(gained: int, lost: int, n: int, confidence: float = 0.95) -> Difference:
    one_sided = 1 - (1 - confidence) / 2
    low, high = tango_lower(gained, lost, n, one_sided), tango_upper(gained, lost, n, one_sided)
    return Difference(gained, lost, n, (gained - lost) / n if n else None, low, high)


def tango_upper(gained: int, lost: int, n: int, confidence: float = 0.95) -> float:
    """The opposite one-sided bound: swapping the two counts mirrors the interval."""
    return -tango_lower(lost, gained, n, confidence)


def _tango_variance(gained: int, lost: int, n: int, d0: float) -> float:
    """Variance of gained - lost at true difference ``d0``; q estimates the lost share."""
    b = (2 * n - gained + lost) * d0 - gained - lost
    c = -lost * d0 * (1 - d0)
    q = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    return max(0.0, n * (2 * q + d0 * (1 - d0)))


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p of the discordant counts under equal odds. Describes; decides nothing."""
    return 1.0 if b == c else min(1.0, 2 * float(bdtr(min(b, c), b + c, 0.5)))


def p_loss(gained: int, lost: int) -> float:
    """P(at least ``lost`` of the discordant pairs | equal odds): exact one-sided McNemar test.

    Small values say that more is lost than gained.
    """
    return float(bdtrc(lost - 1, gained + lost, 0.5)) if lost else 1.0


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses Holm's step-down procedure (1979) rejects at family-wise level ``alpha``."""
    rejected = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for rank, i in enumerate(order):
        if p_values[i] >= alpha / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected


def _check(k: int, n: int, confidence: float) -> None:
    if not 0 <= k <= n or not 0 < confidence < 1:
        raise ValueError(f"not a binomial count: k={k} n={n} at {confidence}")
