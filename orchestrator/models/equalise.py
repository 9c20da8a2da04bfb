"""Steps that agree once every channel may have a factor of its own: cross-layer equalisation.

Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019:
a ReLU passes positive factors through, so tools move them from one layer's output channels to the
next one's input channels before they quantise. The network computes the same; its weights differ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats64 = NDArray[np.float64]

SWEEPS = 12
SLACK = 0.1
"""Steps beyond one half: least squares finds a factor to a fraction of a step, not exactly."""


def within_factors(codes: Floats64, steps: Floats64) -> int:
    """How many ``codes`` lie within 0.6 of ``steps`` times one factor per channel.

    Both [any shape], zero point taken away, in units of the step. Factors run along the two longest
    axes and are fitted by alternating least squares.
    """
    axes = sorted(range(codes.ndim), key=lambda a: -codes.shape[a])[:2]
    factors = [np.ones([n if i == a else 1 for i, n in enumerate(codes.shape)]) for a in axes]
    product = steps
    for _ in range(SWEEPS):
        for i, axis in enumerate(axes):
            rest = tuple(a for a in range(codes.ndim) if a != axis)
            others = product / factors[i]
            power = (others * others).sum(axis=rest, keepdims=True)
            fitted = (codes * others).sum(axis=rest, keepdims=True)
            # A channel of zeros fits any factor, and a negative one would turn a ReLU round.
            usable = (power > 0) & (fitted > 0)
            factors[i] = np.where(usable, fitted / np.where(power > 0, power, 1.0), 1.0)
            product = others * factors[i]
    return int((np.abs(product - codes) <= 0.5 + SLACK).sum())
