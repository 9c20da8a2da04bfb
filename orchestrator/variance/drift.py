"""Whether two samples come from one distribution: inputs, features or confidences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

PERMUTATIONS = 500
QUANTILES = 10
MAX_POINTS = 4000
"""Of both samples together: the kernel matrix has their number squared."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mmd:
    """The result of a two-sample test of drift.

    ``mmd2`` may be negative: it is unbiased around 0. ``p``: at most 1, at least 1 / (permutations
    + 1). ``bandwidth``: sigma of exp(-d^2 / (2 sigma^2)), None when all points are equal.
    """

    mmd2: float
    p: float
    bandwidth: float | None


def mmd(x: Floats, y: Floats, seed: int, *, permutations: int = PERMUTATIONS) -> Mmd:
    """Unbiased squared maximum mean discrepancy of ``x`` [n, features] and ``y`` [m, features].

    Gretton et al. 2012, lemma 6: means of the kernel without its diagonal within each sample, minus
    twice that between them. RBF kernel, sigma the median distance within the pooled sample; p from
    permutations of the *pooled* sample, which is what the null hypothesis says is exchangeable.
    Raises ValueError for fewer than two points a side, points that are not finite, or more than
    MAX_POINTS.
    """
    n, m = len(x), len(y)
    pooled = np.concatenate([x.reshape(n, -1), y.reshape(m, -1)]).astype(np.float64)
    if min(n, m) < 2 or n + m > MAX_POINTS or not np.isfinite(pooled).all():
        raise ValueError(
            f"MMD of {n} and {m} points: needs 2 finite ones each, {MAX_POINTS} at most"
        )
    squared = cdist(pooled, pooled, "sqeuclidean")
    apart = squared[np.triu_indices(n + m, 1)]
    median = float(np.median(apart)) or float(apart.mean())
    if median == 0:
        return Mmd(0.0, 1.0, None)
    kernel = np.exp(-squared / (2 * median))
    np.fill_diagonal(kernel, 0.0)
    first = np.zeros((permutations + 1, n + m))
    first[0, :n] = 1
    rng = np.random.default_rng(seed)
    for row in first[1:]:
        row[rng.permutation(n + m)[:n]] = 1
    sums = first @ kernel
    within = np.einsum("ij,ij->i", sums, first)
    between = sums.sum(axis=1) - within
    rest = float(kernel.sum()) - within - 2 * between
    found = within / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * between / (n * m)
    # Rounding must not make an arrangement that equals the observed one seem smaller.
    as_far = int((found[1:] >= found[0] - 1e-12).sum())
    return Mmd(float(found[0]), (1 + as_far) / (permutations + 1), float(np.sqrt(median)))


def psi(reference: Floats, other: Floats) -> float:
    """Population stability index: sum (o - r) ln(o / r) over bins between ``reference``'s deciles.

    0 for equal shares, symmetric in them, unbounded; by convention 0.1 is a warning and 0.25 an
    alarm. Equal deciles share a bin. Half a count is added to each bin on both sides, so that an
    empty one does not make it infinite. Raises ValueError without finite values on both sides.
    """
    r, o = (np.asarray(v, dtype=np.float64).ravel() for v in (reference, other))
    r, o = r[np.isfinite(r)], o[np.isfinite(o)]
    if not r.size or not o.size:
        raise ValueError("PSI needs finite values on both sides")
    inner = np.unique(np.quantile(r, np.arange(1, QUANTILES) / QUANTILES))
    shares = []
    for values in (r, o):
        counts = np.bincount(np.searchsorted(inner, values), minlength=inner.size + 1) + 0.5
        shares.append(counts / counts.sum())
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
