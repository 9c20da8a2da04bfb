"""What the difference between two sets of answers looks like, before anybody asks why."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.diagnosis.permuted import Real, swapped_columns
from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import Array, Output, real
from orchestrator.variance.pair import Pair, compare
from orchestrator.variance.tasks import Classification, tensor

BLOCK = 1 << 15
"""Elements of a side that are widened at once: memory stays bounded, and in the cache."""


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
    """In bounded memory, as `compare`. Raises TaskError where the two cannot be compared."""
    pair = compare(a, b)
    up = down = ones = None
    if not pair.lattice_differs and any(q is not None for q in a.narrow):
        up, down = _signs(a, b)
        ones = (pair.lsb_histogram or {}).get("1", 0)
    lost = gained = right = None
    if a.correct is not None and b.correct is not None:
        right = int(a.correct.sum()), int(b.correct.sum())
        lost, gained = int((a.correct & ~b.correct).sum()), int((~a.correct & b.correct).sum())
    both = _Both(*(tensor(side.task, side.outputs) for side in (a, b)))
    relative, same_sum = _reach(both)
    differs = pair.bit_exact < pair.n
    return Signature(
        pair,
        up,
        down,
        ones,
        relative,
        swapped_columns(both) if differs and isinstance(a.task, Classification) else None,
        differs and same_sum and _same_rows(both),
        right,
        lost,
        gained,
        (a.nonfinite, b.nonfinite),
    )


class _Both:
    """Real values of two outputs of one shape, float64 [samples, elements], a block at a time."""

    def __init__(self, x: Output, y: Output) -> None:
        self._sides = x, y

    def __iter__(self) -> Iterator[tuple[Real, Real]]:
        x, y = self._sides
        for part in _parts(x.values):
            a, b = (real(replace(side, values=side.values[part])) for side in (x, y))
            yield a, b


def _parts(values: Array) -> Iterator[slice]:
    rows = max(1, BLOCK * len(values) // max(1, values.size))
    yield from (slice(start, start + rows) for start in range(0, len(values), rows))


def _signs(a: Answers, b: Answers) -> tuple[int, int]:
    """Elements whose code is larger, and smaller, in a."""
    up = down = 0
    for x, y in zip(a.narrow, b.narrow, strict=True):
        if x is None or y is None:
            continue
        for part in _parts(x):
            up += int(np.count_nonzero(x[part] > y[part]))
            down += int(np.count_nonzero(x[part] < y[part]))
    return up, down


def _reach(both: _Both) -> tuple[float | None, bool]:
    """As ``Signature.relative``, with whether the bits of both sides have one sum.

    They have where one side holds the other's rows in another order.
    """
    largest = apart = 0.0
    sums = np.zeros(2, np.uint64)
    for a, b in both:
        sums += np.array([x.view(np.uint64).sum() for x in (a, b)])
        finite = np.isfinite(a) & np.isfinite(b)
        if not finite.all():
            a, b = a[finite], b[finite]
        if a.size:
            largest = max(largest, float(np.abs(a).max()))
            apart = max(apart, float(np.abs(a - b).max()))
    return (apart / largest if largest else None), bool(sums[0] == sums[1])


def _same_rows(both: _Both) -> bool:
    """Whether both hold the same samples, several different ones, in another order."""
    left: list[bytes] = []
    right: list[bytes] = []
    for pair in both:
        for found, x in zip((left, right), pair, strict=True):
            rows = np.ascontiguousarray(x)
            found += (hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    return len(set(left)) > 1 and left != right and sorted(left) == sorted(right)
