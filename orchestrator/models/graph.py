"""A model as operators and the tensors between them, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Form = tuple[str, Sequence[int]]
"""Dtype and shape of a tensor."""


QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
MOVES = (QUANTISE, DEQUANTISE, "Transpose", "ReorderInput", "ReorderOutput", "Identity")
"""ONNX operators that change the form of a tensor and not what it says."""


class NotLocalisableError(Exception):
    """The model cannot be looked into; the text says why, in words for whoever asked."""


@dataclass(frozen=True)
class Operator:
    """An operator of a graph.

    ``kind``: as the format calls it. ``name``: for people. ``inputs``, ``outputs``: tensors that
    hold values at run time, constants left out. A tensor's key is its index (TFLite, where names
    need not differ) or its name (ONNX), as text.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Lattice:
    """A tensor of integers q stands for (q - zero_point) * scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Graph:
    """A model's operators in the order in which they run.

    ``lattices``: of tensors with one per tensor, where the file says so.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: tuple[Operator, ...]
    lattices: Mapping[str, Lattice] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """Part of a model as a model of its own; it takes ``inputs`` and gives ``outputs``."""

    model: bytes = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Meanings:
    """Tensors of an optimised graph. ``stands_for``: which of the FP32 parent's each stands for.

    ``lattices``: of integer tensors, where one is known. ``dequantised``: tensor of reals -> the
    integer tensor that it was made from.
    """

    stands_for: Mapping[str, str]
    lattices: Mapping[str, Lattice]
    dequantised: Mapping[str, str]


def same_bits(a: Array, b: Array) -> bool:
    """Whether type, shape and every byte are equal: -0.0 is not 0.0, a NaN is the same NaN."""
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()


@dataclass(frozen=True)
class Difference:
    """One or more tensors of two devices, ``a`` minus ``b``, over the samples looked at.

    Integers: ``max_lsb`` is max |qa - qb|, ``mean_lsb`` mean (qa - qb), both in steps of their own
    lattice; None where any tensor is float. Floats: ``max_abs`` in real units, None where all are
    integers or a difference is not finite. ``a_higher`` of the ``different`` elements are larger
    on a.
    """

    samples: int
    samples_different: int
    elements: int
    different: int
    a_higher: int
    max_lsb: int | None
    mean_lsb: float | None
    max_abs: float | None

    @property
    def sign(self) -> str:
        """Where a is higher: "+" in every element that differs, "-" in none, "±" in some."""
        if not self.different:
            return ""
        return {self.different: "+", 0: "-"}.get(self.a_higher, "±")


def difference(a: tuple[Array, ...], b: tuple[Array, ...]) -> Difference:
    """Of tensors [samples, ...], bit by bit. Raises NotLocalisableError where they do not match."""
    forms = [tuple((x.dtype.str, x.shape) for x in side) for side in (a, b)]
    if forms[0] != forms[1]:
        raise NotLocalisableError(f"tensors of forms {forms[0]} and {forms[1]} on the two devices")
    touched = np.zeros(len(a[0]), dtype=bool)
    elements = different = higher = steps = 0
    largest: int | None = 0
    furthest: float | None = None
    for x, y in zip(a, b, strict=True):
        flat, other = x.reshape(len(x), -1), y.reshape(len(y), -1)
        unequal = _bits(flat) != _bits(other)
        touched |= unequal.any(axis=1)
        elements, different = elements + unequal.size, different + int(unequal.sum())
        higher += int(np.sum(flat[unequal] > other[unequal]))
        if x.dtype.kind in "iub":
            delta = flat[unequal].astype(np.int64) - other[unequal].astype(np.int64)
            steps += int(delta.sum())
            if largest is not None:
                largest = max(largest, int(np.abs(delta).max(initial=0)))
        else:
            largest = None
            gap = np.abs(flat[unequal].astype(np.float64) - other[unequal].astype(np.float64))
            # A NaN would hide in Python's max, but not in NumPy's.
            furthest = float(np.max([furthest or 0.0, gap.max(initial=0.0)]))
    mean = None if largest is None or not elements else steps / elements
    finite = furthest if furthest is not None and np.isfinite(furthest) else None
    return Difference(
        len(touched), int(touched.sum()), elements, different, higher, largest, mean, finite
    )


def _bits(x: Array) -> Array:
    flat = np.ascontiguousarray(x)
    return flat.view(f"u{flat.dtype.itemsize}")


@dataclass(frozen=True)
class Layer:
    """An operator of the model that two devices do differently: the kind that each runs for it."""

    name: str
    a: str
    b: str


@dataclass(frozen=True)
class PlanDifference:
    """What two devices' optimisers make of one file.

    ``layers``: computed in integers on one side and in float on the other. ``a``, ``b``: kind ->
    how many more of it that side has than the other. ``same``: kind -> how many of it compute in
    integers on both.
    """

    layers: tuple[Layer, ...]
    a: Mapping[str, int]
    b: Mapping[str, int]
    same: Mapping[str, int]
