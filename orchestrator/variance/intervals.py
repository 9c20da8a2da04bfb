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


def quantile(values: Floats, q: float, confidence: float = 0.95) -> Estimate:
    """The ``q`` quantile of ``values`` [n], n >= 1, all finite, between two order statistics.

    The number of samples below a distribution's own quantile is binomial (n, q), whatever the
    distribution, so the interval covers at least ``confidence`` of the time (David & Nagaraja,
    Order Statistics, 7.1). An end that too few samples lie beyond is None.
    """
    ordered, tail = np.sort(values), (1 - confidence) / 2
    n = len(ordered)
    at_most = bdtr(np.arange(n), n, q)
    below, above = int((at_most <= tail).sum()), int((1 - at_most > tail).sum())
    return Estimate(
        float(np.quantile(ordered, q)),
        n,
        float(ordered[below - 1]) if below else None,
        float(ordered[above]) if above < n else None,
    )


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

    # Half of what a command that needs no such bound takes to start would be this import.
    from scipy.optimize import brentq

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


def apart(a: Difference, b: Difference) -> Estimate:
    """Difference of ``a`` from ``b``, of other samples.

    MOVER on their own intervals (Zou & Donner 2008, Stat. Med. 27:1693, eq. 7). None without
    samples on a side.
    """
    n = a.n + b.n
    if a.difference is None or b.difference is None:
        return Estimate(None, n, None, None)
    value = a.difference - b.difference
    low = value - math.hypot(a.difference - a.low, b.high - b.difference)
    high = value + math.hypot(a.high - a.difference, b.difference - b.low)
    return Estimate(value, n, low, high)


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


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p adjusted for all of them by Holm's step-down procedure (1979).

    Those below alpha are the hypotheses that it rejects at family-wise level alpha.
    """
    adjusted, least = [1.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for rank, i in enumerate(order):
        least = max(least, p_values[i] * (len(p_values) - rank))
        adjusted[i] = min(1.0, least)
    return adjusted


def _check(k: int, n: int, confidence: float) -> None:
    if not 0 <= k <= n or not 0 < confidence < 1:
        raise ValueError(f"not a binomial count: k={k} n={n} at {confidence}")
