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
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from orchestrator.variance.lattice import Array, Output, codes, real

BINS = 2048
SMOOTHING = 0.5
"""Added to every bin's count for KL, so that an empty one does not make it infinite."""
DB_PER_BIT = 6.02

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerStats:
    """x the FP32 values, y the other's real values, over the ``n`` elements finite in both;

    ``nonfinite`` further elements are NaN or infinite on a side. None is "not defined here".

    ``sqnr_db`` 20 log10(||x|| / ||x - y||) (ONNX Runtime, qdq_loss_debug), infinite for equal
    values; ``effective_bits`` sqnr_db / 6.02. ``noise_ratio`` ||x - y||^2 / ||x||^2 (PPQ).
    ``rmse_scale`` RMSE in steps of the lattice, 1/sqrt(12) when only rounding happened (TFLite
    debugger). ``norm_rmse`` RMSE / the larger of both value ranges (ML-EXray). ``max_abs``, and
    ``bias`` mean y - x, are in real units.

    ``kl`` KL(x || y) in nats and ``js`` Jensen-Shannon distance (0 to sqrt(ln 2)) on one histogram
    of ``bins`` bins. ``w1_sigma`` Wasserstein-1 distance / standard deviation of x.

    ``clip_rate`` share of codes at either end of their range; ``clip_excess`` that, minus the
    share of x within half a step of the ends' values (ReLU zeros are no clipping).
    ``range_overflow`` share of x outside the calibrated range. ``code_utilisation`` distinct codes
    / codes of the range.
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
    if reference.shape != other.values.shape:
        raise ValueError(f"layers of shapes {reference.shape} and {other.values.shape}")
    if other.values.dtype.kind in "iu" and not other.scale:
        raise ValueError("integer codes without a scale have no real values")
    x, y, q = reference.astype(np.float64).ravel(), real(other).ravel(), codes(other)
    finite = np.isfinite(x) & np.isfinite(y)
    lost = int(finite.size - finite.sum())
    x, y, q = x[finite], y[finite], None if q is None else q.ravel()[finite]
    if not x.size:
        return LayerStats(n=0, nonfinite=lost)
    step, grid = float(np.float32(other.scale)) if other.scale else None, _grid(other)
    if calibrated is None and grid is not None:
        calibrated = grid.low - grid.step / 2, grid.high + grid.step / 2
    return LayerStats(
        n=x.size,
        nonfinite=lost,
        range_overflow=None
        if calibrated is None
        else _share((x < calibrated[0]) | (x > calibrated[1])),
        **_errors(x, y, step),
        **_distances(np.sort(x), np.sort(y), step),
        **({} if q is None or grid is None else _use_of_codes(x, q, grid)),
    )


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


@dataclass(frozen=True)
class _Grid:
    """A lattice with ends: codes ``first`` to ``last`` stand for ``low`` to ``high``."""

    step: float
    first: int
    last: int
    low: float
    high: float


def _grid(other: Output) -> _Grid | None:
    first, last = other.code_min, other.code_max
    if (first is None or last is None) and other.values.dtype.kind in "iu":
        limits = np.iinfo(other.values.dtype)
        first, last = int(limits.min), int(limits.max)
    if not other.scale or first is None or last is None:
        return None
    step, zero = float(np.float32(other.scale)), other.zero_point or 0
    return _Grid(step, first, last, (first - zero) * step, (last - zero) * step)


def _errors(x: Floats, y: Floats, step: float | None) -> dict[str, Any]:
    noise = y - x
    signal_power, noise_power = float(np.dot(x, x)), float(np.dot(noise, noise))
    rmse, sqnr = math.sqrt(noise_power / x.size), _decibels(signal_power, noise_power)
    return {
        "sqnr_db": sqnr,
        "effective_bits": sqnr / DB_PER_BIT,
        "noise_ratio": _ratio(noise_power, signal_power),
        "rmse_scale": None if step is None else rmse / step,
        "norm_rmse": _ratio(rmse, max(float(np.ptp(x)), float(np.ptp(y)))),
        "cosine": 1.0 if noise_power == 0 and signal_power else _cosine(x, y),
        "max_abs": float(np.abs(noise).max()),
        "bias": float(noise.mean()),
    }


def _cosine(x: Floats, y: Floats) -> float | None:
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return max(-1.0, min(1.0, float(np.dot(x, y)) / norms)) if norms else None


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _distances(x: Floats, y: Floats, step: float | None) -> dict[str, Any]:
    """Of two sorted samples of one size, between which W1 is the mean distance of ranks."""
    p, r = _histograms(x, y, step)
    return {
        "bins": p.size,
        "kl": _kl(p, r),
        "js": float(jensenshannon(p, r)),
        "w1_sigma": _ratio(float(np.abs(x - y).mean()), float(x.std())),
    }


def _histograms(x: Floats, y: Floats, step: float | None) -> tuple[Floats, Floats]:
    """Counts of both in the same bins over x's range, and in one bin below and one above it.

    BINS equal ones, or one for each step of the lattice where steps are wider: in bins finer than
    a step, codes leave gaps that FP32 fills, and a perfect quantisation would seem far away.
    """
    low, high = x[0], x[-1]
    if step and step * BINS >= high - low:
        edges = (np.arange(round(low / step), round(high / step) + 2) - 0.5) * step
    else:
        edges = np.linspace(low, np.nextafter(high, np.inf), BINS + 1)
    whole = np.concatenate([[-np.inf], edges, [np.inf]])
    p, r = (np.diff(np.searchsorted(v, whole)).astype(np.float64) for v in (x, y))
    return p, r


def _kl(p: Floats, r: Floats) -> float:
    p, r = p + SMOOTHING, r + SMOOTHING
    return float(rel_entr(p / p.sum(), r / r.sum()).sum())


def _use_of_codes(x: Floats, q: NDArray[np.int64], grid: _Grid) -> dict[str, Any]:
    clipped = _share((q == grid.first) | (q == grid.last))
    half = grid.step / 2
    at_ends = _share((np.abs(x - grid.low) <= half) | (np.abs(x - grid.high) <= half))
    return {
        "clip_rate": clipped,
        "clip_excess": clipped - at_ends,
        "code_utilisation": np.unique(q).size / (grid.last - grid.first + 1),
    }


def _ratio(above: float, below: float) -> float | None:
    """0 / 0 is 0: no error at all is none in any unit. Otherwise nothing is measured by 0."""
    if above == 0:
        return 0.0
    return above / below if below else None


def _share(mask: NDArray[np.bool_]) -> float:
    return float(mask.mean())
