"""How far the largest of each row of integers lies above the second largest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 32
"""Up to so many columns it is faster to go through them than through the rows."""
BLOCK = 128 << 10
"""Bytes at once: what is made of them stays in the cache."""

Integers = NDArray[np.integer[Any]]


def lead(q: Integers) -> NDArray[np.float64]:
    """Largest minus second largest of each row of ``q`` [n, 2 or more], 0 on ties: [n], exact to

    2^53.
    """
    found, of = np.empty(len(q)), _by_columns if q.shape[1] <= FEW else _by_rows
    rows = max(1, BLOCK // (q.shape[1] * q.itemsize))
    for start in range(0, len(q), rows):
        found[start : start + rows] = of(q[start : start + rows])
    return found


def _by_columns(q: Integers) -> Integers:
    columns = np.ascontiguousarray(q.T)
    best, second = np.maximum(*columns[:2]), np.minimum(*columns[:2])
    for column in columns[2:]:
        np.maximum(second, np.minimum(best, column), out=second)
        np.maximum(best, column, out=best)
    return _minus(best, second)


def _by_rows(q: Integers) -> Integers:
    rest, rows = q.copy(), np.arange(len(q))
    at = rest.argmax(axis=1)
    best = rest[rows, at]
    rest[rows, at] = np.iinfo(q.dtype).min
    return _minus(best, rest.max(axis=1))


def _minus(best: Integers, second: Integers) -> Integers:
    return best.astype(np.int64) - second.astype(np.int64)
