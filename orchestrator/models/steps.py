"""Whether float numbers are whole multiples of a step: weights that were integers once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.weights import Floats

LEVELS = 255
"""Most steps between zero and the largest value of eight-bit codes, unsigned ones included."""
LEAST = 6
"""Distinct values besides zero that tell a lattice from chance: (2 x TOLERANCE)^5 x LEVELS."""
TOLERANCE = 1e-3
_ELEMENTS, _CHANNELS = 64, 64
"""Looked at per channel, and channels per constant: enough to refuse nearly all of them."""


def on_lattice(values: Floats) -> bool:
    """Whether ``values``, of any shape, are dequantised eight-bit integers.

    That is, whether some step exists of which every element is a whole multiple, 255 at most, up
    to float rounding; one step for all, or one per index of one axis. False where there are too
    few distinct values to tell.
    """
    values = values.reshape([n for n in values.shape if n != 1] or [1])
    if _stepped(values.reshape(1, -1)):
        return True
    if values.ndim < 2:
        return False
    return any(
        _stepped(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1))
        for axis in range(values.ndim)
    )


def _stepped(rows: Floats) -> bool:
    """[channels, elements]: each row on a lattice of its own, as far as rows can tell."""
    tried = 0
    for row in _spread(rows, _CHANNELS):
        distinct = np.unique(np.abs(row.astype(np.float64)))
        distinct = distinct[distinct > 0]
        if distinct.size < LEAST:
            continue
        if distinct.size > LEVELS or not _multiples(distinct):
            return False
        tried += 1
    return tried > 0


def _multiples(distinct: NDArray[np.float64]) -> bool:
    steps = distinct[-1] / np.arange(1, LEVELS + 1)
    few = _spread(distinct, _ELEMENTS)[None, :] / steps[:, None]
    fits = (np.abs(few - np.rint(few)) <= TOLERANCE).all(axis=1)
    return any(
        bool((np.abs(distinct / step - np.rint(distinct / step)) <= TOLERANCE).all())
        for step in steps[fits]
    )


def _spread(values: Floats, most: int) -> Floats:
    return values[:: -(-len(values) // most)]
