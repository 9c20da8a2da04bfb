"""What the difference between two sets of answers looks like, before anybody asks why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import real
from orchestrator.variance.pair import Pair, compare
from orchestrator.variance.tasks import Classification, tensor

MAX_CLASSES = 2048
"""Wider outputs are not searched for swapped columns: the table of pairs grows with the square."""
ALIKE = 0.9
"""Least correlation of a swapped column with its counterpart."""


@dataclass(frozen=True, eq=False)
class Signature:
    """``a`` against ``b``.

    ``up``/``down``: elements whose code is larger/smaller in a; ``ones``: those that differ by
    exactly one step (all None without codes on one lattice). ``relative``: largest |a - b| of the
    deciding output over the largest |a|, None where nothing is finite. ``columns``: b[:, columns]
    is a, where that explains more than the order as it is; ``rows``: b's samples are a's in another
    order. ``right``: samples decided right by a and by b, and ``lost``/``gained`` of them from a to
    b; None without labels. ``nonfinite``: samples with NaN or infinity, of a and of b.
    """

    pair: Pair
    up: int | None
    down: int | None
    ones: int | None
    relative: float | None
    columns: tuple[int, ...] | None
    rows: bool
    right: tuple[int, int] | None
    lost: int | None
    gained: int | None
    nonfinite: tuple[int, int]

    @property
    def identical(self) -> bool:
        return self.pair.bit_exact == self.pair.n

    @property
    def small(self) -> bool:
        """Whether most differing codes differ by one step, or floats by less than a thousandth."""
        if self.ones is None:
            return self.relative is not None and self.relative < 1e-3
        return self.ones * 2 >= (self.up or 0) + (self.down or 0)


def signature(a: Answers, b: Answers) -> Signature:
    """Raises TaskError where the two cannot be compared."""
    pair = compare(a, b)
    deltas = [
        x - y
        for x, y in zip(a.codes, b.codes, strict=True)
        if x is not None and y is not None and not pair.lattice_differs
    ]
    up = down = ones = None
    if deltas:
        up, down = (int(sum((sign * d > 0).sum() for d in deltas)) for sign in (1, -1))
        ones = int(sum((np.abs(d) == 1).sum() for d in deltas))
    x, y = (_flat(side) for side in (a, b))
    lost = gained = right = None
    if a.correct is not None and b.correct is not None:
        right = int(a.correct.sum()), int(b.correct.sum())
        lost, gained = int((a.correct & ~b.correct).sum()), int((~a.correct & b.correct).sum())
    differs = pair.bit_exact < pair.n
    return Signature(
        pair,
        up,
        down,
        ones,
        _relative(x, y),
        swapped_columns(x, y) if differs and isinstance(a.task, Classification) else None,
        differs and _same_rows(x, y),
        right,
        lost,
        gained,
        (a.nonfinite, b.nonfinite),
    )


def swapped_columns(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[int, ...] | None:
    """The order of b's columns that gives a's, or None where the order as it is explains as much.

    [n, classes] each. Columns are matched by their correlation over the samples; every one must
    find a partner of its own, and those that moved must fit there well and not where they were.
    """
    n, classes = a.shape
    if n < 3 or not 2 <= classes <= MAX_CLASSES or not (_finite(a) and _finite(b)):
        return None
    table = _standard(a).T @ _standard(b) / n
    best = table.argmax(axis=1)
    moved = best != np.arange(classes)
    if not moved.any() or len(set(best.tolist())) != classes:
        return None
    there = table[np.arange(classes), best][moved]
    before = table.diagonal()[moved]
    if there.min() < ALIKE or (there - before).min() < (1 - ALIKE):
        return None
    return tuple(int(i) for i in best)


def _standard(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0 and deviation 1 in each column; constant columns are 0 and correlate with nothing."""
    centred: NDArray[np.float64] = x - x.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled: NDArray[np.float64] = np.zeros_like(centred)
    np.divide(centred, deviation, out=scaled, where=deviation > 0)
    return scaled


def _same_rows(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether both hold the same samples, several different ones, in another order."""
    left, right = ([row.tobytes() for row in np.ascontiguousarray(x)] for x in (a, b))
    return len(set(left)) > 1 and left != right and sorted(left) == sorted(right)


def _relative(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    both = np.isfinite(a) & np.isfinite(b)
    if not both.any():
        return None
    largest = float(np.abs(a[both]).max())
    return float(np.abs(a[both] - b[both]).max()) / largest if largest else None


def _flat(side: Answers) -> NDArray[np.float64]:
    """Deciding output as float64 [n, elements]."""
    return real(tensor(side.task, side.outputs)).reshape(side.n, -1)


def _finite(x: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(x).all())
