"""The weights of a model as arrays: what the readers give and the comparison takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Role = Literal["weight", "bias"]

BIAS_BITS = 32
"""Integers of this width and more are biases: their scale is a product of two others."""


@dataclass(frozen=True, eq=False)
class Codes:
    """A constant stored as integers: value = (codes - zero) x scale.

    ``codes``: integers of any shape. ``scale``, ``zero``: broadcastable to it. ``low``, ``high``:
    the codes that the type can hold.
    """

    name: str
    codes: NDArray[np.integer[Any]]
    scale: NDArray[np.float64]
    zero: NDArray[np.int64]
    low: int
    high: int

    @property
    def role(self) -> Role:
        return "bias" if self.high >= 2 ** (BIAS_BITS - 1) - 1 else "weight"

    def values(self) -> NDArray[np.float64]:
        """In real units."""
        real: NDArray[np.float64] = (self.codes.astype(np.float64) - self.zero) * self.scale
        return real


@dataclass(frozen=True, eq=False)
class Real:
    """A float constant. ``folded``: a batch normalisation or factor behind it is multiplied in."""

    name: str
    values: Floats
    folded: bool = False


@dataclass(frozen=True, eq=False)
class Weights:
    """``skipped``: constants that could not be read as weights, and why."""

    codes: tuple[Codes, ...]
    reals: tuple[Real, ...]
    skipped: tuple[str, ...] = ()


@dataclass
class Found:
    """`Weights` being gathered by a reader."""

    codes: list[Codes] = field(default_factory=list)
    reals: list[Real] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add_codes(
        self, name: str, codes: Any, scale: Any, zero: Any, axis: int, bounds: tuple[int, int]
    ) -> None:
        """One constant of integers; ``scale`` of one element, or one per index of ``axis``."""
        scale, zero = np.asarray(scale, np.float64).ravel(), np.asarray(zero, np.int64).ravel()
        if not np.isfinite(scale).all() or not (scale > 0).all():
            self.skipped.append(f"{name}: its scales are not all positive numbers")
            return
        if codes.size < 2:  # one number agrees with anything
            return
        along = np.ones(codes.ndim, int)
        if scale.size > 1:
            if not -codes.ndim <= axis < codes.ndim or codes.shape[axis] != scale.size:
                self.skipped.append(f"{name}: {scale.size} scales do not fit its shape")
                return
            along[axis] = scale.size
        zero = np.broadcast_to(zero if zero.size else np.zeros(1, np.int64), scale.shape)
        self.codes.append(Codes(name, codes, scale.reshape(along), zero.reshape(along), *bounds))

    def add_real(self, name: str, values: Floats, folded: bool = False) -> None:
        if values.size > 1 and np.isfinite(values).all():
            self.reals.append(Real(name, values, folded))

    def add_layer(
        self,
        name: str,
        weight: Floats,
        axis: int,
        bias: Floats | None,
        behind: Sequence[tuple[Any, Any]],
    ) -> None:
        """A layer's weights as they are and as its followers fold into them.

        ``axis``: of the output channels. ``behind``: (factor, offset) of each operator that
        follows, of one element or one per channel: y -> y x factor + offset. A batch normalisation
        is factor gamma / sqrt(variance + epsilon), offset beta - mean x factor (Ioffe and Szegedy,
        2015); folding it is Jacob et al., 2018, section 3.2.
        """
        channels = weight.shape[axis]
        shift = np.zeros(channels) if bias is None else bias.astype(np.float64).ravel()
        if shift.size != channels:
            return
        factor = np.ones(channels)
        along = np.ones(weight.ndim, int)
        along[axis] = channels
        for i, (times, plus) in enumerate(behind):
            times, plus = np.asarray(times, float).ravel(), np.asarray(plus, float).ravel()
            if {times.size, plus.size} - {1, channels}:
                return
            factor, shift = factor * times, shift * times + plus
            kept = weight.dtype
            if not (factor == 1).all():
                folded = weight * factor.reshape(along)
                self.add_real(f"{name} x{i + 1}", folded.astype(kept), folded=True)
            self.add_real(f"{name} +{i + 1}", shift.astype(kept), folded=True)

    def done(self) -> Weights:
        return Weights(tuple(self.codes), tuple(self.reals), tuple(self.skipped))
