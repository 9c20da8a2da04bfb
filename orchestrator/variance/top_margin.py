"""The largest of each row of integers, and how far it lies above the second largest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.lattice import Array

FEW = 32
"""Up to so many columns, a power of two, it is faster to go through them than through the rows."""
BLOCK = 128 << 10
"""Bytes at once: what is made of them stays in the cache."""


def lead(q: Array) -> NDArray[np.float64]:
    """Largest minus second largest of each row of ``q`` [n, 2 or more], 0 on ties.

    [n], exact to 2^53.
    """
    found, of = np.empty(len(q)), _by_columns if q.shape[1] <= FEW else _by_rows
    rows = max(1, BLOCK // (q.shape[1] * q.itemsize))
    for start in range(0, len(q), rows):
        found[start : start + rows] = of(q[start : start + rows])
    return found


def largest(q: Array) -> NDArray[np.int64]:
    """Index of the largest of each row of ``q`` [n, 1 or more], the first one on ties: [n]."""
    found, rows = np.empty(len(q), np.int64), max(1, BLOCK // q.shape[1])
    if q.shape[1] > FEW or q.itemsize > 1:
        return np.argmax(q, axis=1, out=found)
    for start in range(0, len(q), rows):
        # Numbers that are in order of value first and of place, from the last on, second.
        columns = np.ascontiguousarray(q[start : start + rows].T).astype(np.int16) * FEW
        best = columns[0] + (FEW - 1)
        for place, column in enumerate(columns[1:], 1):
            np.maximum(best, column + (FEW - 1 - place), out=best)
        found[start : start + len(best)] = FEW - 1 - (best & (FEW - 1))
    return found


def _by_columns(q: Array) -> Array:
    columns = np.ascontiguousarray(q.T)
    best, second = np.maximum(*columns[:2]), np.minimum(*columns[:2])
    for column in columns[2:]:
        np.maximum(second, np.minimum(best, column), out=second)
        np.maximum(best, column, out=best)
    return _minus(best, second)


def _by_rows(q: Array) -> Array:
    rest, rows = q.copy(), np.arange(len(q))
    at = rest.argmax(axis=1)
    best = rest[rows, at]
    rest[rows, at] = np.iinfo(q.dtype).min
    return _minus(best, rest.max(axis=1))


def _minus(best: Array, second: Array) -> Array:
    return best.astype(np.int64) - second.astype(np.int64)
