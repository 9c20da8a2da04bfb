"""The same model file on two devices or runtimes, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import Array, Output, bits
from orchestrator.variance.tasks import Mask, TaskError, disagree

NEAR_TIE_LSB = 2
HISTOGRAM_LAST = 255
NEAR = 8
"""Up to this largest distance, counting one value after the other is the fastest histogram."""
BLOCK = 120 << 10
"""Bytes of a side that are compared at once: they and what is made of them stay in the cache, and

below the 128 KiB from which malloc maps fresh pages for every array."""


@dataclass(frozen=True, eq=False)
class Pair:
    """``a`` against ``b`` over ``n`` samples.

    ``bit_exact`` samples whose bytes are equal in every output; ``elements_different`` of
    ``elements`` differ. LSB figures are over the outputs that have codes on one lattice on both
    sides, a minus b, None where there is none: ``sample_lsb`` [n] is max |qa - qb| of each sample,
    ``lsb_histogram`` counts elements by |qa - qb| (keys "0".."255", ">255").
    ``lattice_differs``: an output that has codes on one side has none, or others, on the other.
    ``near_tie`` of the ``disagreement`` samples have a top margin under NEAR_TIE_LSB on at least
    one side; None where margins are unknown.
    """

    n: int
    bit_exact: int
    elements: int
    elements_different: int
    disagreement: int
    near_tie: int | None
    max_lsb: int | None
    mean_signed_lsb: float | None
    lsb_histogram: dict[str, int] | None
    sample_lsb: NDArray[np.int64] | None = field(repr=False)
    lattice_differs: bool = False

    def over(self, lsb: int) -> int | None:
        """Samples with max |LSB| above ``lsb``; None without codes."""
        return None if self.sample_lsb is None else int((self.sample_lsb > lsb).sum())


def compare(a: Answers, b: Answers) -> Pair:
    """Raises TaskError when the outputs differ in number or shape.

    Reads both sides once, block by block, so that memory stays bounded whatever their size.
    """
    shapes = [tuple(o.values.shape for o in side.outputs) for side in (a, b)]
    if shapes[0] != shapes[1]:
        raise TaskError(f"outputs of shapes {shapes[0]} and {shapes[1]} cannot be compared")
    unequal, lsb = np.zeros(a.n, dtype=bool), _Distances(a.n)
    elements, different, lattice_differs = 0, 0, False
    for x, y, qx, qy in zip(a.outputs, b.outputs, a.narrow, b.narrow, strict=True):
        elements += x.values.size
        on_one = qx is not None and qy is not None and _lattice(x) == _lattice(y)
        lattice_differs |= not on_one and (qx is not None or qy is not None)
        if qx is not None and qy is not None and on_one:
            lsb.elements += qx.size
            if x.values.dtype == y.values.dtype and x.values.dtype.kind in "iu":
                different += _scan(qx, qy, unequal, lsb)  # the codes are the bytes
                continue
            _scan(qx, qy, np.zeros(a.n, dtype=bool), lsb)
        if x.values.dtype == y.values.dtype:
            different += _scan(bits(x), bits(y), unequal)
        else:
            different += x.values.size
            unequal[:] = True
    differ = disagree(a.task, a.decisions, b.decisions)
    return Pair(
        n=a.n,
        bit_exact=int((~unequal).sum()),
        elements=elements,
        elements_different=different,
        disagreement=int(differ.sum()),
        near_tie=_near_ties(a, b, differ),
        max_lsb=int(lsb.largest.max()) if lsb.elements else None,
        mean_signed_lsb=lsb.signed / lsb.elements if lsb.elements else None,
        lsb_histogram=lsb.counts() if lsb.elements else None,
        sample_lsb=lsb.largest if lsb.elements else None,
        lattice_differs=lattice_differs,
    )


class _Distances:
    """How far codes p and q of ``elements`` elements are apart, summed over outputs.

    ``largest`` max |p - q| of each sample; ``signed`` the sum of p - q.
    """

    def __init__(self, n: int) -> None:
        self.largest = np.zeros(n, np.int64)
        self.elements = self.signed = 0
        self.histogram = np.zeros(HISTOGRAM_LAST + 2, np.int64)

    def note(self, samples: NDArray[np.intp], p: Array, q: Array, count: int) -> None:
        """``p`` and ``q``: codes of ``samples``, of which ``count``, one at least, differ."""
        if p.dtype != q.dtype:
            p, q = p.astype(np.int64), q.astype(np.int64)
        # The difference of two integers fits the unsigned type of their width, whatever wraps.
        distance = (np.maximum(p, q) - np.minimum(p, q)).view(f"u{p.itemsize}")
        largest = distance.max(axis=1).astype(np.int64)
        self.largest[samples] = np.maximum(self.largest[samples], largest)
        top = int(largest.max())
        if top > NEAR:
            at = np.flatnonzero(p != q)  # of a mask: faster than of numbers
            delta = p.ravel()[at].astype(np.int64) - q.ravel()[at]
            self.signed += int(delta.sum())
            far = np.minimum(np.abs(delta), HISTOGRAM_LAST + 1)
            self.histogram += np.bincount(far, minlength=self.histogram.size)
            return
        for lsb in range(1, top):
            found = int(np.count_nonzero(distance == lsb))
            self.histogram[lsb] += found
            count -= found
        self.histogram[top] += count
        if top == 1:
            self.signed += 2 * int(np.count_nonzero(p > q)) - count
        else:
            wide = np.int16 if p.itemsize == 1 else np.int64
            self.signed += int(np.subtract(p, q, dtype=wide).sum(axis=0, dtype=np.int64).sum())

    def counts(self) -> dict[str, int]:
        found = self.histogram.copy()
        found[0] = self.elements - found.sum()
        names = [*map(str, range(HISTOGRAM_LAST + 1)), f">{HISTOGRAM_LAST}"]
        return {names[i]: int(k) for i, k in enumerate(found) if k}


def _scan(x: Array, y: Array, unequal: Mask, lsb: _Distances | None = None) -> int:
    """How many elements of ``x`` and ``y`` [n, elements] differ; marks samples ``unequal``."""
    different, rows = 0, max(1, BLOCK // max(1, x.shape[1] * x.itemsize))
    u, v = (_words(x), _words(y)) if x.dtype == y.dtype else (x, y)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        apart = u[part] != v[part]
        if not apart.any():  # as most are: of the whole, for by rows it takes as long again
            continue
        samples = start + np.flatnonzero(apart.any(axis=1))
        unequal[samples] = True
        p, q = x[part], y[part]
        if 2 * samples.size < len(p):
            p, q = x[samples], y[samples]
        else:
            samples = np.arange(start, start + len(p))
        count = int(np.count_nonzero(p != q))
        different += count
        if lsb is not None:
            lsb.note(samples, p, q, count)
    return different


def _words(x: Array) -> Array:
    """The same rows as wider integers: equal words are equal bytes, and fewer to compare."""
    x = np.ascontiguousarray(x)
    width = next(w for w in (8, 4, 2, 1) if x.shape[1] * x.itemsize % w == 0)
    return x.view(f"u{width}")


def _lattice(output: Output) -> tuple[float | None, int | None]:
    return output.scale, output.zero_point


def _near_ties(a: Answers, b: Answers, differ: NDArray[np.bool_]) -> int | None:
    if a.margins is None or b.margins is None:
        return None
    return int(np.sum(differ & (np.minimum(a.margins, b.margins) < NEAR_TIE_LSB)))
