"""The same model file on two devices or runtimes, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import Array, Output, bits
from orchestrator.variance.tasks import Mask, TaskError, disagree

NEAR_TIE_LSB = 2
HISTOGRAM_LAST = 255
NEAR = 8
"""Up to this largest distance, counting one value after the other is the fastest histogram."""
BLOCK = 240 << 10
"""Bytes of a side that are compared at once: they and what is made of them stay in the cache."""
WORD = 8
SPARSE = 32
"""Where fewer than one in so many words of a block differ, its samples are looked at one by one."""
UNSEEN = 15
"""Blocks after one with more that are compared in full without a look at their words."""


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
    for i, (x, y) in enumerate(zip(a.outputs, b.outputs, strict=True)):
        qx, qy = a.narrow[i], b.narrow[i]
        elements += x.values.size
        on_one = qx is not None and qy is not None and _lattice(x) == _lattice(y)
        lattice_differs |= not on_one and (qx is not None or qy is not None)
        if qx is not None and qy is not None and on_one:
            lsb.signed += (a.sums[i] or 0) - (b.sums[i] or 0)
            if x.values.dtype == y.values.dtype and x.values.dtype.kind in "iu":
                different += lsb.scan(qx, qy, unequal)  # the codes are the bytes
                continue
            lsb.scan(qx, qy, np.zeros(a.n, dtype=bool))
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

    def scan(self, x: Array, y: Array, unequal: Mask) -> int:
        """How many codes of ``x`` and ``y`` [n, elements] differ; marks samples ``unequal``."""
        if x.dtype != y.dtype:
            x, y = x.astype(np.int64), y.astype(np.int64)
        before = int(self.histogram.sum())
        self.elements += x.size
        # The difference of two integers fits the unsigned type of their width, whatever wraps.
        largest = np.zeros(len(x), f"u{x.itemsize}")
        low = np.empty(min(len(x), _rows(x)) * x.shape[1], x.dtype.newbyteorder("="))
        space = np.empty(-(-low.nbytes // WORD), np.uint64)
        for samples, p, q in _blocks(x, y):
            distance = space.view(largest.dtype)[: p.size].reshape(p.shape)
            np.maximum(p, q, out=distance.view(low.dtype))
            least = np.minimum(p, q, out=low[: p.size].reshape(p.shape))
            np.subtract(distance, least.view(distance.dtype), out=distance)
            largest[samples] = farthest = distance.max(axis=1)
            words = space[: -(-p.nbytes // WORD)]
            words.view(np.uint8)[p.nbytes :] = 0
            self._note(words, distance, int(farthest.max()))
        unequal |= largest > 0
        self.largest = np.maximum(self.largest, largest.astype(np.int64))
        return int(self.histogram.sum()) - before

    def _note(self, words: NDArray[np.uint64], distance: Array, top: int) -> None:
        """``words``: what ``distance`` lies in, zeros after it; ``top``: its largest."""
        if top <= NEAR:
            rest = int(np.count_nonzero(distance))
            for lsb in range(1, top):
                found = int(np.count_nonzero(distance == lsb))
                self.histogram[lsb] += found
                rest -= found
            self.histogram[top] += rest
            return
        # Of words first: of bytes, few of which are not 0, it takes ten times as long.
        some = _nonzero(words)
        if distance.itemsize == 1:
            far = _nonzero(some.view(np.uint16)).view(np.uint8)
        else:
            far = np.minimum(_nonzero(some.view(distance.dtype)), HISTOGRAM_LAST + 1)
        counts = np.bincount(far.astype(np.int64), minlength=self.histogram.size)
        self.histogram[1:] += counts[1:]

    def counts(self) -> dict[str, int]:
        found = self.histogram.copy()
        found[0] = self.elements - found.sum()
        names = [*map(str, range(HISTOGRAM_LAST + 1)), f">{HISTOGRAM_LAST}"]
        return {names[i]: int(k) for i, k in enumerate(found) if k}


def _scan(x: Array, y: Array, unequal: Mask) -> int:
    """How many elements of ``x`` and ``y`` [n, elements], of one type, differ; marks samples."""
    different = 0
    for samples, p, q in _blocks(x, y):
        apart = p != q
        unequal[samples] |= apart.any(axis=1)
        different += int(np.count_nonzero(apart))
    return different


def _blocks(x: Array, y: Array) -> Iterator[tuple[Any, Array, Array]]:
    """Which samples, and both sides of them: all in which ``x`` and ``y``, of one type, differ.

    Equal ones come along where to leave them out is more work than to compare them in full.
    """
    # Slices of a mapped file's own class cost more than what is done with them.
    x, y, rows = np.ascontiguousarray(x), np.ascontiguousarray(y), _rows(x)
    u, v = _words(x), _words(y)
    room, unseen = np.empty((rows, u.shape[1]), dtype=bool), 0
    alone = np.zeros(len(x), dtype=bool)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        if unseen:
            unseen -= 1
            yield part, x[part], y[part]
            continue
        apart = np.not_equal(u[part], v[part], out=room[: len(u[part])])
        count = int(np.count_nonzero(apart))
        if not count:
            continue
        if count < apart.size // SPARSE:
            alone[start + np.flatnonzero(apart) // u.shape[1]] = True
            if 2 * np.count_nonzero(alone[part]) < len(apart):
                continue
            alone[part] = False
        unseen = UNSEEN
        yield part, x[part], y[part]
    few = np.flatnonzero(alone)
    for start in range(0, len(few), rows):
        some = few[start : start + rows]
        yield some, x[some], y[some]


def _rows(x: Array) -> int:
    wide: int = x.shape[1] * x.itemsize
    return max(1, BLOCK // max(1, wide))


def _nonzero(x: Array) -> Array:
    """As x[x != 0] of a flat array, which takes twice as long."""
    return x.take(np.flatnonzero(x != 0))


def _words(x: Array) -> Array:
    """The same rows as wider integers: equal words are equal bytes, and fewer to compare."""
    width = next(w for w in (8, 4, 2, 1) if x.shape[1] * x.itemsize % w == 0)
    return x.view(f"u{width}")


def _lattice(output: Output) -> tuple[float | None, int | None]:
    return output.scale, output.zero_point


def _near_ties(a: Answers, b: Answers, differ: NDArray[np.bool_]) -> int | None:
    if a.margins is None or b.margins is None:
        return None
    return int(np.sum(differ & (np.minimum(a.margins, b.margins) < NEAR_TIE_LSB)))
