"""Which samples of a run to look into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.graph import Array


def distances(a: Sequence[Array], b: Sequence[Array]) -> NDArray[np.float64]:
    """Distance of two devices' outputs [n, ...] per sample: [n], the largest |a - b|.

    In the outputs' own units. 0 only where every byte is equal; infinite where a NaN, or another
    type or shape, leaves nothing to subtract.
    """
    count = len(a[0])
    found = np.zeros(count)
    for x, y in zip(a, b, strict=True):
        if (x.dtype, x.shape) != (y.dtype, y.shape):
            return np.full(count, np.inf)
        flat = [np.ascontiguousarray(z).reshape(count, -1) for z in (x, y)]
        unequal = (flat[0].view(np.uint8) != flat[1].view(np.uint8)).any(axis=1)
        with np.errstate(invalid="ignore"):
            gap = np.abs(flat[0].astype(np.float64) - flat[1].astype(np.float64)).max(axis=1)
        gap = np.where(np.isfinite(gap), np.maximum(gap, np.finfo(np.float64).tiny), np.inf)
        found = np.maximum(found, np.where(unequal, gap, 0.0))
    return found


def choose(distance: NDArray[np.float64], most: int) -> list[int]:
    """Up to ``most`` samples in rising order: those furthest apart, filled up with equal ones.

    Samples that differ come first; others, spread evenly, only if there are not enough.

    The last bit of a float softmax makes many samples differ a little and says little; what else
    differs shows where they are furthest apart. And a device may compute differently and yet end
    with the same answer.
    """
    order = np.argsort(-distance, kind="stable")
    chosen = [int(i) for i in order[:most] if distance[i] > 0]
    equal = np.flatnonzero(distance == 0)
    room = min(most - len(chosen), len(equal))
    if room:
        spread = np.linspace(0, len(equal) - 1, room).round().astype(int)
        chosen += [int(equal[i]) for i in spread]
    return sorted(chosen)
