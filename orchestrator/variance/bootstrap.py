"""Percentile bootstrap, for statistics whose interval has no closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.intervals import Estimate

RESAMPLES = 400

Statistic = Callable[[NDArray[np.int64]], float]


def bootstrap(
    statistic: Statistic, n: int, seed: int, *, resamples: int = RESAMPLES, confidence: float = 0.95
) -> Estimate:
    """``statistic`` of all ``n`` samples, and a two-sided percentile interval (Efron 1979).

    It gets indices [n] of samples and must read every array it compares at the same ones: drawn
    pairwise, what two devices have in common stays in common. Equal seeds give equal intervals.
    With one sample nothing is known of the spread: no interval.
    """
    value = statistic(np.arange(n))
    if n < 2:
        return Estimate(value, n, None, None)
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, n, n)) for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return Estimate(value, n, float(low), float(high))
