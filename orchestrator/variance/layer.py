"""One tensor inside a model: FP32 activations against what the quantised model has there.

Local or accumulated error is the caller's choice of ``other``: from golden inputs fed to the one
operator, or from the whole model up to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.bins import Bins, Counted, Grid, distances
from orchestrator.variance.lattice import Array, Output, codes, real

DB_PER_BIT = 6.02
_CHUNK = 1 << 13
"""Elements worked on at once.

Their float64 stay in cache, and below malloc's threshold for fresh pages.
"""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerStats:
    """Figures of a layer's values y against x, the FP32 values.

    Over the ``n`` elements finite in both; ``nonfinite`` further elements are NaN or infinite on a
    side. None is "not defined here".

    ``sqnr_db`` 20 log10(||x|| / ||x - y||) (ONNX Runtime, qdq_loss_debug), infinite for equal
    values; ``effective_bits`` sqnr_db / 6.02. ``noise_ratio`` ||x - y||^2 / ||x||^2 (PPQ).
    ``rmse_scale`` RMSE in steps of the lattice, 1/sqrt(12) when only rounding happened (TFLite
    debugger). ``norm_rmse`` RMSE / the larger of both value ranges (ML-EXray). ``max_abs``, and
    ``bias`` mean y - x, are in real units.

    ``kl`` KL(x || y) in nats and ``js`` Jensen-Shannon distance (0 to sqrt(ln 2)) on one histogram
    of ``bins`` bins. ``w1_sigma`` Wasserstein-1 distance / standard deviation of x. How they are
    binned, and what that can cost W1, is `bins`' to say.

    ``clip_rate`` share of codes at either end of their range; ``clip_excess`` that, minus the share
    of x within half a bin (a step, of 8-bit codes) of the ends' values: ReLU zeros are no clipping.
    ``range_overflow`` share of x outside the calibrated range. ``code_utilisation`` distinct codes
    / codes of the range. Codes are of 16 bits at most.
    """

    n: int
    nonfinite: int
    sqnr_db: float | None = None
    effective_bits: float | None = None
    noise_ratio: float | None = None
    rmse_scale: float | None = None
    norm_rmse: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    bias: float | None = None
    bins: int = 0
    kl: float | None = None
    js: float | None = None
    w1_sigma: float | None = None
    clip_rate: float | None = None
    clip_excess: float | None = None
    range_overflow: float | None = None
    code_utilisation: float | None = None


def layer_stats(
    reference: Array, other: Output, *, calibrated: tuple[float, float] | None = None
) -> LayerStats:
    """``reference`` [...] FP32 values; ``other`` the same tensor, as codes or as real values.

    Codes are known where ``other`` is an integer tensor, or a float one wholly on its lattice.
    ``calibrated``: lowest and highest value seen in calibration; default what the lattice can
    represent, half a step of rounding at its ends included. Raises ValueError where the shapes
    differ or integers come without a scale: neither may be guessed.
    """
    sums = LayerSums(calibrated=calibrated)
    sums.add(reference, other)
    return sums.stats()


class LayerSums:
    """`layer_stats` of a tensor that comes block by block: memory does not grow with their number.

    All blocks are of one lattice, that of the first. ``beside``: other integer codes that are added
    with the same references, each block before this: references are not counted twice.
    """

    def __init__(
        self, *, calibrated: tuple[float, float] | None = None, beside: LayerSums | None = None
    ) -> None:
        self._calibrated, self._beside = calibrated, beside
        self._grid: Grid | None = None
        self._step: float | None = None
        self._bins: Bins | None = None
        self._x: Counted = Counted() if beside is None else beside._x
        self._y = Counted()
        self._on_lattice = True
        self._lost = self._outside = 0
        self._noise = self._bias = self._furthest = 0.0
        self._codes: NDArray[np.int64] | None = None
        self._real: Floats | None = None

    def add(self, reference: Array, other: Output) -> None:
        """One block; parameters and errors as of `layer_stats`."""
        if reference.shape != other.values.shape:
            raise ValueError(f"layers of shapes {reference.shape} and {other.values.shape}")
        if other.values.dtype.kind in "iu" and not other.scale:
            raise ValueError("integer codes without a scale have no real values")
        if self._beside is not None and other.values.dtype.kind not in "iu":
            raise ValueError("a float may be no number where the codes beside it are some")
        x, values = reference.ravel(), other.values.ravel()
        if self._bins is None:
            self._begin(x, other)
        for start in range(0, x.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            lattice = other.scale, other.zero_point, other.code_min, other.code_max
            self._part(x[part].astype(np.float64), Output(other.name, values[part], *lattice))

    def stats(self) -> LayerStats:
        """Of all blocks so far."""
        x, n = self._x, self._x.n
        if not n or self._bins is None:
            return LayerStats(n=0, nonfinite=self._lost)
        y = self._y
        if self._furthest == 0:
            y = x  # equal values summed in another order would differ in their rounding
        elif not y.n and self._codes is not None and self._real is not None:
            y = Counted.of(self._real, self._codes, self._bins)
        rmse, sqnr = math.sqrt(self._noise / n), _decibels(x.squares, self._noise)
        return LayerStats(
            n=n,
            nonfinite=self._lost,
            sqnr_db=sqnr,
            effective_bits=sqnr / DB_PER_BIT,
            noise_ratio=_ratio(self._noise, x.squares),
            rmse_scale=None if self._step is None else rmse / self._step,
            norm_rmse=_ratio(rmse, max(x.high - x.low, y.high - y.low)),
            cosine=1.0 if self._noise == 0 and x.squares else self._cosine(y),
            max_abs=self._furthest,
            bias=self._bias / n,
            range_overflow=None if self._calibrated is None else self._outside / n,
            **distances(x, y, self._bins),
            **self._use_of_codes(self._bins),
        )

    def _begin(self, x: Array, other: Output) -> None:
        self._step = float(np.float32(other.scale)) if other.scale else None
        self._grid = grid = Grid.of(other)
        if self._calibrated is None and grid is not None:
            self._calibrated = grid.low - grid.step / 2, grid.high + grid.step / 2
        self._bins = Bins.of(x, grid) if self._beside is None else self._beside._bins
        if grid is not None and grid.count <= 1 << 16:
            self._codes = np.zeros(grid.count, dtype=np.int64)
            # As `real` has them: the product of float32 is exact in float64.
            zero = other.zero_point or 0
            self._real = np.arange(grid.count, dtype=np.float64) + (grid.first - zero)
            self._real *= grid.step

    def _part(self, x: Floats, other: Output) -> None:
        q = self._coded(other)
        y = real(other).ravel() if q is None or self._real is None else self._real.take(q)
        # One number tells: a NaN or an infinity in the sum stays there.
        if not np.isfinite(np.dot(x, x)) or (q is None and not np.isfinite(np.dot(y, y))):
            finite = np.isfinite(x) & np.isfinite(y)
            self._lost += int(finite.size - finite.sum())
            x, y, q = x[finite], y[finite], None if q is None else q[finite]
            if not x.size:
                return
        assert self._bins is not None  # set before any part
        if self._beside is None:
            self._x.add(x, self._bins)
        if q is None or other.values.dtype.kind == "f":
            self._y.add(y, self._bins)
        if q is not None and self._codes is not None:
            self._codes += np.bincount(q, minlength=self._codes.size)
        noise = np.subtract(y, x, out=y)
        self._noise += float(np.dot(noise, noise))
        self._bias += float(noise.sum())
        self._furthest = max(self._furthest, float(noise.max()), -float(noise.min()))
        if self._calibrated is not None:
            low, high = self._calibrated
            if self._x.low < low or self._x.high > high:
                self._outside += int(np.count_nonzero(x < low) + np.count_nonzero(x > high))

    def _coded(self, other: Output) -> NDArray[np.int64] | None:
        """Codes counted from the lattice's first. Once a value is off it the tensor has none."""
        if not self._on_lattice or self._codes is None or self._grid is None:
            return None
        if other.values.dtype.kind in "iu":
            return np.subtract(other.values, self._grid.first, dtype=np.int64)
        found = codes(other)
        self._on_lattice = found is not None
        return None if found is None else found.ravel() - self._grid.first

    def _cosine(self, y: Counted) -> float | None:
        norms = math.sqrt(self._x.squares * y.squares)
        dot = (self._x.squares + y.squares - self._noise) / 2
        return max(-1.0, min(1.0, dot / norms)) if norms else None

    def _use_of_codes(self, bins: Bins) -> dict[str, Any]:
        if self._codes is None or not self._on_lattice or self._grid is None:
            return {}
        clipped = int(self._codes[0] + self._codes[-1]) / self._x.n
        ends = {bins.wide_of(self._grid.low), bins.wide_of(self._grid.high)}
        at_ends = sum(bins.within(self._x, end) for end in ends) / self._x.n
        return {
            "clip_rate": clipped,
            "clip_excess": clipped - at_ends,
            "code_utilisation": int(np.count_nonzero(self._codes)) / self._codes.size,
        }


def amplification(noise_ratios: Sequence[float | None]) -> list[float | None]:
    """log(e_k / e_k-1) of the relative error e = sqrt(noise ratio), along a chain of layers.

    Positive where a layer makes accumulated error worse. None for the first, and beside a layer
    without error or without a ratio.
    """
    logs = [math.log(r) / 2 if r and math.isfinite(r) else None for r in noise_ratios]
    steps = [
        None if now is None or before is None else now - before for before, now in pairwise(logs)
    ]
    return [None, *steps] if logs else []


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _ratio(above: float, below: float) -> float | None:
    """0 / 0 is 0: no error at all is none in any unit. Otherwise nothing is measured by 0."""
    if above == 0:
        return 0.0
    return above / below if below else None
