"""How far integer codes lie from the real numbers that they should be, in steps. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from orchestrator.variance.lattice import Array

FAR = 2.0
"""Steps from what its file means that no code of a sound kernel lies.

Measured over the probe pack and the real models' operators, 8 million codes in each of LiteRT
with and without XNNPACK, its reference kernels and tflite-runtime 2.14; the pack also on an
emulated Cortex-A53: at most 0.96, where an accumulator is narrowed; ONNX Runtime 0.5. U8S8 products
in int16: up to 106.
"""


@dataclass(frozen=True)
class Distance:
    """How far codes lie from the real numbers they stand for.

    Of ``n`` codes; real numbers that are not finite are left out. ``far`` lie more than FAR steps
    from theirs; ``max_steps`` and ``rmse_steps``: the largest distance, and the root of the mean
    square; 0 to 0.5 and 0 to 0.29 where codes are the reals, rounded.
    """

    n: int
    far: int
    max_steps: float
    rmse_steps: float


@dataclass
class StepSums:
    """`Distance` of a tensor that comes block by block."""

    scale: float
    zero_point: int
    _n: int = field(default=0, init=False)
    _far: int = field(default=0, init=False)
    _max: float = field(default=0.0, init=False)
    _squares: float = field(default=0.0, init=False)

    def add(self, codes: Array, meant: Array) -> None:
        """Add ``codes``, integers, and ``meant``, the reals of the same shape that they stand for.

        Outside of what the type holds the nearest code is the right one. Raises ValueError for
        codes that are not integers, or other shapes.
        """
        if codes.shape != meant.shape or codes.dtype.kind not in "iu":
            raise ValueError(f"{codes.dtype} codes {codes.shape} beside reals {meant.shape}")
        limits = np.iinfo(codes.dtype)
        steps = meant.astype(np.float64).ravel() / float(np.float32(self.scale))
        steps += self.zero_point
        np.clip(steps, limits.min, limits.max, out=steps)
        steps -= codes.ravel()
        steps = np.abs(steps[np.isfinite(steps)])
        self._n += steps.size
        self._far += int(np.count_nonzero(steps > FAR))
        self._max = max(self._max, float(steps.max(initial=0.0)))
        self._squares += float(np.dot(steps, steps))

    def distance(self) -> Distance | None:
        """Of all blocks so far; None of nothing."""
        if not self._n:
            return None
        return Distance(self._n, self._far, self._max, math.sqrt(self._squares / self._n))
