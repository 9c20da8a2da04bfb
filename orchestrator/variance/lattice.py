"""One output tensor, its real values, and its integer codes where it has any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Output:
    """One output tensor of one cell.

    ``values`` [n, ...] is exactly what the model put out. ``scale``, ``zero_point``, ``code_min``
    and ``code_max`` are the quantisation lattice of an integer output, or the one a float output
    is known to come from; None where unknown.
    """

    name: str
    values: Array
    scale: float | None = None
    zero_point: int | None = None
    code_min: int | None = None
    code_max: int | None = None


def real(output: Output) -> NDArray[np.float64]:
    """Real values, float64 [n, elements]: (q - zero_point) * scale for integers with a scale."""
    flat = output.values.reshape(len(output.values), -1)
    if flat.dtype.kind in "iu" and output.scale is not None:
        return (flat.astype(np.float64) - (output.zero_point or 0)) * float(
            np.float32(output.scale)
        )
    return flat.astype(np.float64)


def codes(output: Output) -> NDArray[np.int64] | None:
    """Integer codes [n, elements], or None when the tensor has none ("not applicable").

    Integer tensors are their own codes. A float tensor has codes only if *every* element x equals
    float32((q - zero_point) * scale) bit for bit in value for an integer q in
    [code_min, code_max]; the product of two float32 is exact in float64, so this is also what a
    float32 dequantisation gives. One NaN, infinity or off-lattice value anywhere means None: it
    was computed in float somewhere, and rounding it to codes would invent a measurement.
    """
    flat = output.values.reshape(len(output.values), -1)
    if flat.dtype.kind in "iu":
        return flat.astype(np.int64)
    scale = float(np.float32(output.scale)) if output.scale is not None else 0.0
    if (
        flat.dtype.kind != "f"
        or not np.isfinite(scale)
        or scale <= 0
        or not np.isfinite(flat).all()
    ):
        return None
    zero_point = output.zero_point or 0
    q = np.rint(flat.astype(np.float64) / scale) + zero_point
    if not np.array_equal(((q - zero_point) * scale).astype(np.float32), flat):
        return None
    low = -np.inf if output.code_min is None else output.code_min
    high = np.inf if output.code_max is None else output.code_max
    if ((q < low) | (q > high) | (np.abs(q) > 2**53)).any():
        return None
    return q.astype(np.int64)


def bits(output: Output) -> Array:
    """The tensor's bit patterns [n, elements] as unsigned integers.

    -0.0 differs from 0.0, and a NaN equals the same NaN: equality of these is equality of the
    stored bytes.
    """
    flat = np.ascontiguousarray(output.values.reshape(len(output.values), -1))
    return flat.view(f"u{flat.dtype.itemsize}")
