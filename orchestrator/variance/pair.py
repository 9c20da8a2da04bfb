"""The same model file on two devices or runtimes, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import bits
from orchestrator.variance.tasks import TaskError, disagree

NEAR_TIE_LSB = 2
HISTOGRAM_LAST = 255


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
    """Raises TaskError when the outputs differ in number or shape."""
    shapes = [tuple(o.values.shape for o in side.outputs) for side in (a, b)]
    if shapes[0] != shapes[1]:
        raise TaskError(f"outputs of shapes {shapes[0]} and {shapes[1]} cannot be compared")
    same = np.ones(a.n, dtype=bool)
    elements = different = 0
    for left, right in zip(a.outputs, b.outputs, strict=True):
        unequal = (
            bits(left) != bits(right)
            if left.values.dtype == right.values.dtype
            else np.ones((a.n, left.values[0].size), dtype=bool)
        )
        same &= ~unequal.any(axis=1)
        elements += unequal.size
        different += int(unequal.sum())
    differ = disagree(a.task, a.decisions, b.decisions)
    delta, lattice_differs = _deltas(a, b)
    return Pair(
        n=a.n,
        bit_exact=int(same.sum()),
        elements=elements,
        elements_different=different,
        disagreement=int(differ.sum()),
        near_tie=_near_ties(a, b, differ),
        max_lsb=None if delta is None else int(np.abs(delta).max()),
        mean_signed_lsb=None if delta is None else float(delta.mean()),
        lsb_histogram=None if delta is None else _histogram(np.abs(delta)),
        sample_lsb=None if delta is None else np.abs(delta).max(axis=1),
        lattice_differs=lattice_differs,
    )


def _deltas(a: Answers, b: Answers) -> tuple[NDArray[np.int64] | None, bool]:
    """qa - qb of all comparable outputs side by side [n, elements], and whether any was not."""
    found, differs = [], False
    for x, y, qx, qy in zip(a.outputs, b.outputs, a.codes, b.codes, strict=True):
        if qx is None and qy is None:
            continue
        if qx is None or qy is None or (x.scale, x.zero_point) != (y.scale, y.zero_point):
            differs = True
        elif qx.size:
            found.append(qx - qy)
    return (np.concatenate(found, axis=1) if found else None), differs


def _near_ties(a: Answers, b: Answers, differ: NDArray[np.bool_]) -> int | None:
    if a.margins is None or b.margins is None:
        return None
    return int(np.sum(differ & (np.minimum(a.margins, b.margins) < NEAR_TIE_LSB)))


def _histogram(distance: NDArray[np.int64]) -> dict[str, int]:
    counts = np.bincount(np.minimum(distance, HISTOGRAM_LAST + 1).ravel())
    names = [*map(str, range(HISTOGRAM_LAST + 1)), f">{HISTOGRAM_LAST}"]
    return {names[i]: int(k) for i, k in enumerate(counts) if k}
