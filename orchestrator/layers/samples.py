"""Which samples of a run to look into."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.layers.graph import Array


def differing(a: Sequence[Array], b: Sequence[Array]) -> NDArray[np.bool_]:
    """Of outputs [n, ...] of two devices: [n], whether any byte of the sample differs.

    Outputs of another type or shape differ in every sample.
    """
    count = len(a[0])
    found = np.zeros(count, dtype=bool)
    for x, y in zip(a, b, strict=True):
        if (x.dtype, x.shape) != (y.dtype, y.shape):
            return np.ones(count, dtype=bool)
        raw = [np.ascontiguousarray(z).reshape(count, -1).view(np.uint8) for z in (x, y)]
        found |= (raw[0] != raw[1]).any(axis=1)
    return found


def choose(differs: NDArray[np.bool_], most: int) -> list[int]:
    """Up to ``most`` samples, rising: those that differ, evenly from among them; others only if

    there are not enough, for a device may compute otherwise and yet end with the same answer.
    """
    chosen: list[int] = []
    for wanted in (np.flatnonzero(differs), np.flatnonzero(~differs)):
        room = min(most - len(chosen), len(wanted))
        if room:
            spread = np.linspace(0, len(wanted) - 1, room).round().astype(int)
            chosen += [int(wanted[i]) for i in spread]
    return sorted(chosen)
