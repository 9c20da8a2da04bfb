"""Output columns that one side puts out in another order than the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Blocks = Iterable[tuple[Real, Real]]
"""Both sides [samples, classes], a piece at a time; it is gone through several times."""

MAX_CLASSES = 2048
"""Wider outputs are not searched: the table of pairs grows with the square."""
ALIKE = 0.9
"""Least correlation of a swapped column with its counterpart."""
CHUNK = 128
"""Columns that are looked for among all others at once."""


def swapped_columns(blocks: Blocks) -> tuple[int, ...] | None:
    """The order of b's columns that gives a's, or None where the order as it is explains as much.

    Columns are matched by their correlation over the samples; every one must find a partner of its
    own, and those that moved must fit there well and not where they were. So one that fits where
    it is has not moved, and no table of all pairs is made unless some column does not.
    """
    both = _Standard.of(blocks)
    if both is None:
        return None
    best = np.arange(both.classes)
    doubtful, settled = (np.flatnonzero(where) for where in (both.own <= ALIKE, both.own > ALIKE))
    for chunk in _chunks(doubtful):
        table = both.table(chunk)
        best[chunk] = table.argmax(axis=1)
        moved = best[chunk] != chunk
        there, before = table.max(axis=1)[moved], table[np.arange(len(chunk)), chunk][moved]
        if moved.any() and (there.min() < ALIKE or (there - before).min() < 1 - ALIKE):
            return None
    if (best == np.arange(both.classes)).all() or len(set(best.tolist())) != both.classes:
        return None
    if any((both.table(chunk).argmax(axis=1) != chunk).any() for chunk in _chunks(settled)):
        return None
    return tuple(int(i) for i in best)


class _Standard:
    """Both sides with mean 0 and deviation 1 in each column; constant columns correlate with none.

    ``own`` [classes]: correlation of each column of a with the same one of b.
    """

    def __init__(self, blocks: Blocks, n: int, firsts: list[Real], sums: list[Real]) -> None:
        """``sums``: of a, b, a², b² and a·b in each column, less the ``firsts`` of a and b."""
        self._blocks, self._n = blocks, n
        self.classes = len(firsts[0])
        means = [some / n for some in sums]
        self._centres = list(zip(firsts, means[:2], strict=True))
        variances = [means[2] - means[0] ** 2, means[3] - means[1] ** 2]
        self._inverse = [np.sqrt(_inverse(np.maximum(v, 0))) for v in variances]
        covariance = means[4] - means[0] * means[1]
        self.own = covariance * self._inverse[0] * self._inverse[1]

    @classmethod
    def of(cls, blocks: Blocks) -> _Standard | None:
        """None where there is too little, or too much, to tell columns apart by.

        Values are taken less their first row: it is one of them, so that no more than n times the
        rounding of a float64 is lost to cancellation, and nothing of a constant column.
        """
        n, firsts, sums = 0, [np.zeros(0)] * 2, [np.zeros(0)] * 5
        with np.errstate(over="ignore", invalid="ignore"):
            for a, b in blocks:
                if not n:
                    firsts, sums = [a[0].copy(), b[0].copy()], [np.zeros(a.shape[1])] * 5
                if not 2 <= a.shape[1] <= MAX_CLASSES:
                    return None
                n += len(a)
                a, b = a - firsts[0], b - firsts[1]
                parts = (
                    a.sum(axis=0),
                    b.sum(axis=0),
                    *(np.einsum("ij,ij->j", x, y) for x, y in ((a, a), (b, b), (a, b))),
                )
                sums = [some + part for some, part in zip(sums, parts, strict=True)]
        if n < 3 or not all(np.isfinite(some).all() for some in sums):
            return None
        return cls(blocks, n, firsts, sums)

    def table(self, columns: NDArray[np.intp]) -> Real:
        """Correlation of ``columns`` of a with every one of b, [columns, classes]."""
        found = np.zeros((len(columns), self.classes))
        for a, b in self._pieces():
            found += a[:, columns].T @ b
        found *= self._inverse[0][columns, None] / self._n
        found *= self._inverse[1]
        return found

    def _pieces(self) -> Iterator[tuple[Real, Real]]:
        """Less their means."""
        (a_first, a_mean), (b_first, b_mean) = self._centres
        for a, b in self._blocks:
            yield (a - a_first) - a_mean, (b - b_first) - b_mean


def _inverse(x: Real) -> Real:
    return np.divide(1, x, out=np.zeros_like(x), where=x > 0)


def _chunks(columns: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    yield from (columns[start : start + CHUNK] for start in range(0, len(columns), CHUNK))
