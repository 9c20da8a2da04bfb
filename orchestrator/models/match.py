"""Which float constant of the parent an integer constant comes from, and how far from it it lies.

Names are not looked at: converters rename and files are renamed. A pair is found by shape, up to
the order of the axes, and among all that fit by the largest correlation and the least distance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.equalise import within_factors
from orchestrator.models.layouts import Layout, layouts, lengths, spread, squeezed
from orchestrator.models.weights import Codes, Floats, Real, Role

SAMPLE, RARE_SAMPLE = 4096, 512
"""Elements that stand for a whole constant while its counterpart is looked for.

First among layouts as they are written, then among the many more of a flattened picture.
"""

TOLERANCE = 1e-3
"""Steps beyond one half allowed for float rounding of a scale."""
ULPS = 4 * float(np.finfo(np.float32).eps)
"""Share of the value allowed beside that, for a fold and a division in float32."""
EQUAL = 1e-5
"""Share of the largest value by which two float constants may differ that are said to be equal."""

CLOSE = 0.01
"""Correlations that far from the best are as good; the nearest in value is taken."""
SURE = 0.9
"""A correlation from which on no rarer layout is tried."""
ALIKE = 0.5
"""A correlation from which on two constants may have one origin."""

Floats64 = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """One integer constant beside its best counterpart.

    ``n`` elements, of which ``within`` lie no more than half a step (scale) from the parent's
    value, ``worst`` steps at most; ``clipped`` of them at the end of the type's range with the
    parent's value beyond it, which counts as the nearest step. ``correlation``: Pearson's, None
    where one side is constant. ``parent`` is None, and all that follows from it, where the parent
    has no constant of that shape. ``folded``: a batch normalisation was multiplied in first.
    ``equalised``: elements within about half a step once every channel may have a factor of its
    own; None where that was not tried, because all are within anyway or nothing is alike.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    n: int
    per_channel: bool
    parent: str | None = None
    folded: bool = False
    correlation: float | None = None
    within: int | None = None
    worst: float | None = None
    clipped: int | None = None
    equalised: int | None = None

    @property
    def nearest(self) -> bool:
        """Every element is the nearest step of the parent's."""
        return self.within == self.n


class _Trial(NamedTuple):
    """``apart``: mean distance in real units."""

    likeness: float
    apart: float
    real: Real
    layout: Layout


class Parents:
    """The parent's constants by the lengths of their axes in order of size."""

    def __init__(self, reals: Sequence[Real]) -> None:
        self._by_lengths: Mapping[tuple[int, ...], list[Real]] = defaultdict(list)
        for real in reals:
            self._by_lengths[lengths(real.values.shape)].append(real)

    def match(self, codes: Codes) -> Match:
        """The counterpart that agrees best, compared over all elements."""
        values = codes.values().reshape(squeezed(codes.codes.shape))
        tried: list[_Trial] = []
        for rare, few in ((False, SAMPLE), (True, RARE_SAMPLE)):
            places = spread(values.shape, few)
            seen = values[places]
            for real in self._by_lengths.get(lengths(values.shape), ()):
                for layout in layouts(real.values.shape, values.shape, rare):
                    other = layout.at(real.values, places)
                    apart = float(np.abs(seen - other).mean())
                    tried.append(_Trial(_likeness(seen, other, codes), apart, real, layout))
            best = max((t.likeness for t in tried), default=SURE)
            if best >= SURE:
                break
        shape, n = codes.codes.shape, codes.codes.size
        bare = Match(codes.name, codes.role, shape, n, per_channel=codes.scale.size > 1)
        if not tried:
            return bare
        # A correlation sees no factor, and any two pairs of numbers have one of 1 or -1.
        close = (t for t in tried if t.likeness >= best - CLOSE)
        _, _, real, layout = min(close, key=lambda t: t.apart)
        return _measured(bare, codes, real, layout.whole(real.values, values.shape).reshape(shape))

    def holds(self, other: Real) -> bool:
        """Whether one of them equals ``other`` up to float rounding and the order of axes."""
        wanted = other.values.reshape(squeezed(other.values.shape)).astype(np.float64)
        room = EQUAL * float(np.abs(wanted).max())
        return any(
            bool((np.abs(layout.whole(real.values, wanted.shape) - wanted) <= room).all())
            for real in self._by_lengths.get(lengths(wanted.shape), ())
            for layout in layouts(real.values.shape, wanted.shape, rare=False)
        )


def _measured(bare: Match, codes: Codes, real: Real, arranged: Floats) -> Match:
    steps = arranged.astype(np.float64) / codes.scale
    wanted = steps + codes.zero
    distance = np.abs(np.clip(wanted, codes.low, codes.high) - codes.codes)
    stored = float(np.finfo(real.values.dtype).eps) / 2  # a parent in float16 is rounded itself
    allowed = 0.5 + TOLERANCE + (ULPS + stored) * np.abs(steps)
    beyond = (wanted > codes.high + 0.5) | (wanted < codes.low - 0.5)
    within = int((distance <= allowed).sum())
    alike = correlation(codes.values().ravel(), arranged.astype(np.float64).ravel())
    tried = within < bare.n and bare.role == "weight" and alike is not None and alike > ALIKE
    plain = codes.codes.astype(np.float64) - codes.zero
    return Match(
        bare.name,
        bare.role,
        bare.shape,
        bare.n,
        bare.per_channel,
        parent=real.name,
        folded=real.folded,
        correlation=alike,
        within=within,
        worst=float(distance.max()),
        clipped=int((beyond & (distance <= allowed)).sum()),
        equalised=within_factors(plain, steps) if tried else None,
    )


def correlation(a: Floats64, b: Floats64) -> float | None:
    """Pearson's r of two vectors of equal length; None where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / size, -1, 1)) if size > 0 else None


def _likeness(seen: Floats64, other: Floats64, codes: Codes) -> float:
    found = correlation(seen, other)
    if found is not None:
        return found
    # Constants have no correlation; equal ones are as alike as can be.
    return 1.0 if bool((np.abs(seen - other) <= codes.scale.max()).all()) else -1.0
