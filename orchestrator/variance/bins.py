"""Two samples of one tensor in the same bins, which are fixed before the last of them is seen.

A *wide* bin is one step of the lattice, centred on its code (of several steps, where there are
more than BINS codes); KL and JS compare wide bins. In bins finer than a step, codes leave gaps that
FP32 fills, and a perfect quantisation would seem far away. Each wide bin is PER_WIDE narrow ones,
which hold a count and a sum: from those W1 = integral |F - G| is exact but in narrow bins inside
which F and G cross, where it may be short by the bin's width x the share of values in it.

The bins cover a range of codes three times over, the lattice's own in the middle. Without a
lattice, wide bins are 1/BINS of the range of the FP32 values in the first block, and cover twice
that. What lies outside is counted at either end, with its sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from orchestrator.variance.lattice import Array, Output

BINS = 2048
PER_WIDE = 8
SMOOTHING = 0.5
"""Added to every bin's count for KL, so that an empty one does not make it infinite."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """A lattice with ends.

    Codes ``first`` to ``first + count - 1`` stand for ``low`` to ``high``.
    """

    step: float
    first: int
    count: int
    low: float
    high: float

    @classmethod
    def of(cls, other: Output) -> Grid | None:
        """None where the tensor has no lattice, or one without ends."""
        first, last = other.code_min, other.code_max
        if (first is None or last is None) and other.values.dtype.kind in "iu":
            limits = np.iinfo(other.values.dtype)
            first, last = int(limits.min), int(limits.max)
        if not other.scale or first is None or last is None:
            return None
        step, zero = float(np.float32(other.scale)), other.zero_point or 0
        return cls(step, first, last - first + 1, (first - zero) * step, (last - zero) * step)


@dataclass(frozen=True)
class Bins:
    """``count`` wide bins of ``width``, the first from ``start`` on."""

    start: float
    width: float
    count: int

    @classmethod
    def of(cls, x: Array, grid: Grid | None) -> Bins:
        if grid is not None:
            steps = 1 << max(0, math.ceil(math.log2(grid.count / BINS)))
            width, codes = grid.step * steps, -(-grid.count // steps)
            return cls(grid.low - (codes + 0.5) * width, width, 3 * codes)
        finite = x[np.isfinite(x)].astype(np.float64)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        # A constant has no range; the width must not vanish beside its value. Neither end may lie
        # so near to an edge that rounding decides.
        width = (high - low) / BINS * (1 + 2**-20) or max(abs(high), 1.0) / BINS
        return cls(low - (BINS // 2 + 2**-10) * width, width, 2 * BINS)

    def wide_of(self, value: float) -> int:
        """Number of the wide bin with that value; the first or last for what lies outside."""
        return max(0, min(self.count - 1, math.floor((value - self.start) / self.width)))

    def within(self, counted: Counted, wide: int) -> int:
        """How many of the values are in a wide bin."""
        inner = counted.counts[1 + wide * PER_WIDE : 1 + (wide + 1) * PER_WIDE]
        return int(inner.sum())


@dataclass
class Counted:
    """What is kept of one side.

    ``counts``, ``sums`` of each narrow bin and of what lies below the first and above the last; the
    sums are of the distance from the bins' start, in narrow widths.
    """

    n: int = 0
    squares: float = 0.0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    sums: Floats = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, values: Floats, times: NDArray[np.int64], bins: Bins) -> Counted:
        """Each value so many times, which may be none."""
        some = times > 0
        values, times = values[some], times[some]
        place, number, size = _placed(values, bins)
        return cls(
            n=int(times.sum()),
            squares=float(np.dot(values * values, times)),
            total=float(np.dot(values, times)),
            low=float(values.min(initial=math.inf)),
            high=float(values.max(initial=-math.inf)),
            counts=np.bincount(number, weights=times, minlength=size).astype(np.int64),
            sums=np.bincount(number, place * times, size).astype(np.float64),
        )

    def add(self, values: Floats, bins: Bins) -> None:
        place, number, size = _placed(values, bins)
        if not self.counts.size:
            self.counts, self.sums = np.zeros(size, np.int64), np.zeros(size)
        self.n += values.size
        self.squares += float(np.dot(values, values))
        self.total += float(values.sum())
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        self.counts += np.bincount(number, minlength=size)
        self.sums += np.bincount(number, weights=place, minlength=size)

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        mean = self.total / self.n
        return math.sqrt(max(0.0, self.squares / self.n - mean * mean))


def _placed(values: Floats, bins: Bins) -> tuple[Floats, NDArray[np.intp], int]:
    """Distances from the bins' start in narrow widths, the bin of each (0: below all), how many."""
    narrow = bins.count * PER_WIDE
    place = (values - bins.start) * (PER_WIDE / bins.width)
    # Clipped before the cast, which wraps what is too large.
    number = np.clip(place, -1.0, narrow)
    number += 1.0
    return place, number.astype(np.intp), narrow + 2


def distances(x: Counted, y: Counted, bins: Bins) -> dict[str, Any]:
    """KL, JS, W1 / standard deviation of x, and how many bins the first two are of."""
    first, last = bins.wide_of(x.low), bins.wide_of(x.high)
    p, r = _wide(x, first, last), _wide(y, first, last)
    return {
        "bins": p.size,
        "kl": _kl(p, r),
        "js": float(jensenshannon(p, r)),
        "w1_sigma": _in_deviations(_w1(x, y) * bins.width / PER_WIDE, x),
    }


def _wide(side: Counted, first: int, last: int) -> Floats:
    """Counts of the wide bins first to last, and of what lies below and above them."""
    inner = side.counts[1 + first * PER_WIDE : 1 + (last + 1) * PER_WIDE]
    below = side.counts[: 1 + first * PER_WIDE].sum()
    middle = inner.reshape(-1, PER_WIDE).sum(axis=1)
    return np.array([below, *middle, side.n - below - middle.sum()], dtype=np.float64)


def _kl(p: Floats, r: Floats) -> float:
    p, r = p + SMOOTHING, r + SMOOTHING
    return float(rel_entr(p / p.sum(), r / r.sum()).sum())


def _w1(x: Counted, y: Counted) -> float:
    """The integral of |F - G|, in narrow widths.

    Inside a bin [b, b + 1) the integral of F is F(b) plus the sum of b + 1 - value over the values
    in it; below and above all bins, F and G are 0 and 1.
    """
    narrow = x.counts.size - 2
    edges = np.arange(1, narrow + 1, dtype=np.float64)
    areas = []
    for side in (x, y):
        before = np.cumsum(side.counts)[:-2]
        inside = edges * side.counts[1:-1] - side.sums[1:-1]
        below = -side.sums[0]
        above = side.sums[-1] - narrow * side.counts[-1]
        areas.append(np.array([below, *(before + inside), -above]) / side.n)
    return float(np.abs(areas[0] - areas[1]).sum())


def _in_deviations(distance: float, x: Counted) -> float | None:
    if distance == 0:
        return 0.0
    return distance / x.deviation if x.deviation else None
