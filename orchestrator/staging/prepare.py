"""From an input set to the exact tensor a model takes. Pure.

Rules, in this order. An array that already has the model's integer type is fed as it is (raw
pixels into a uint8 model, token ids). Otherwise the array holds *real values*: into a quantised
input they go as clip(round_half_even(x / scale) + zero_point), computed in float64 from the file's
float32 scale; into a float input they are cast; into a bool input go zeros and ones. So uint8
pixels 0..255 feed a float model as 0.0..255.0, and an int8 model of scale 1 and zero point -128 as
pixel - 128.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.matrix.model import Layout
from orchestrator.models.inspect import TensorInfo

Array = NDArray[Any]


def prepare(x: Array, layout: Layout, info: TensorInfo) -> Array:
    """C-contiguous [n, ...] of the model's dtype and per-sample shape, little-endian.

    ``x`` [n, ...] finite numbers, channels last for ``nchw``. Axes of length 1 may be added or
    dropped to fit, since that moves no element. Raises InputError E-INPUT-SHAPE, E-INPUT-DTYPE.
    """
    return np.ascontiguousarray(_cast(_shaped(_laid_out(x, layout, info), info), info))


def npy_bytes(array: Array) -> bytes:
    """The array as a .npy file (format 1.0): equal arrays give equal bytes."""
    buffer = io.BytesIO()
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    np.lib.format.write_array(buffer, plain, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _laid_out(x: Array, layout: Layout, info: TensorInfo) -> Array:
    if layout == "flat":
        return x.reshape(len(x), -1)
    if layout == "nchw":
        pictures = x[..., None] if x.ndim == 3 else x
        if pictures.ndim != 4:
            raise InputError(
                "E-INPUT-SHAPE",
                f"layout nchw needs samples [height, width, channels], they are {_s(x.shape[1:])}",
                where=f"input {info.name!r}",
            )
        return pictures.transpose(0, 3, 1, 2)
    return x


def _shaped(x: Array, info: TensorInfo) -> Array:
    have = x.shape[1:]
    if not info.shape or info.shape[0] not in (-1, 1):
        raise InputError(
            "E-INPUT-SHAPE",
            f"the model takes {_s(info.shape)}: its first axis must be a batch of 1",
            where=f"input {info.name!r}",
        )
    want = info.shape[1:]
    if len(have) == len(want) and all(w in (-1, h) for h, w in zip(have, want, strict=True)):
        return x
    if -1 not in want and [n for n in have if n != 1] == [n for n in want if n != 1]:
        return x.reshape(len(x), *want)
    fix = None
    if sorted(have) == sorted(want):
        fix = "channels first? set layout: nchw"
    elif -1 not in want and np.prod(have) == np.prod(want):
        fix = "same number of elements: set layout: flat"
    raise InputError(
        "E-INPUT-SHAPE",
        f"samples are {_s(have)} after the layout, the model takes {_s(want)}",
        where=f"input {info.name!r}",
        fix=fix,
    )


def _cast(x: Array, info: TensorInfo) -> Array:
    try:
        want = np.dtype(info.dtype).newbyteorder("<")
    except TypeError:
        raise _dtype(x, info) from None
    if want.kind == "f":
        return _floats(x, want, info)
    if want.kind == "b" and np.isin(x, (0, 1)).all():
        return x.astype(want)
    if want.kind not in "iu":
        raise _dtype(x, info)
    if x.dtype.kind == want.kind and x.dtype.itemsize == want.itemsize:
        return x.astype(want, copy=False)
    bounds = np.iinfo(want)
    if info.scale is not None:
        codes = np.rint(x.astype(np.float64) / float(np.float32(info.scale)))
        codes = np.clip(codes + (info.zero_point or 0), bounds.min, bounds.max)
        quantised: Array = codes.astype(want)
        return quantised
    if x.dtype.kind not in "iub" or x.min() < bounds.min or x.max() > bounds.max:
        raise _dtype(x, info)
    return x.astype(want)


def _floats(x: Array, want: np.dtype[Any], info: TensorInfo) -> Array:
    with np.errstate(over="ignore"):
        found: Array = x.astype(want)
    if not np.isfinite(found).all():
        raise InputError(
            "E-INPUT-DTYPE",
            f"samples reach {np.abs(x).max():g}, beyond the {info.dtype} that the model takes",
            where=f"input {info.name!r}",
        )
    return found


def _dtype(x: Array, info: TensorInfo) -> InputError:
    return InputError(
        "E-INPUT-DTYPE",
        f"samples are {x.dtype}, which cannot become the {info.dtype} that the model takes",
        where=f"input {info.name!r}",
    )


def _s(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("?" if n == -1 else str(n) for n in shape) + "]"
