"""Read a .npy from an untrusted source.

Nothing is unpickled, and no memory is taken for what a header merely claims.
"""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from orchestrator.results.files import DIMENSIONS, HEADER_LIMIT, ITEM_SIZES, refuse

_HEADERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
_BROKEN = (ValueError, TypeError, SyntaxError, KeyError, MemoryError, RecursionError, EOFError)
"""What NumPy raises for a header that is none."""


def read(
    data: bytes, what: str, *, dtype: str | None = None, shape: Sequence[int] | None = None
) -> NDArray[Any]:
    """The array in ``data``, which it shares: plain numbers in C order, neither more nor less.

    ``dtype``, ``shape``: what it must be. Raises InfraError E-RESULT-FORM, E-RESULT-SHAPE.
    """
    found_dtype, found_shape, offset = _header(data, what)
    payload = math.prod(found_shape) * found_dtype.itemsize
    if len(data) - offset != payload:
        refuse(
            "E-RESULT-FORM",
            f"{what} has {len(data) - offset} bytes for {found_dtype}{list(found_shape)}",
        )
    if dtype is not None and str(found_dtype) != dtype:
        refuse("E-RESULT-SHAPE", f"{what} holds {found_dtype}, not {dtype}")
    if shape is not None and list(found_shape) != list(shape):
        refuse("E-RESULT-SHAPE", f"{what} has shape {list(found_shape)}, not {list(shape)}")
    return np.frombuffer(data, found_dtype, offset=offset).reshape(found_shape)


def _header(data: bytes, what: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    stream = io.BytesIO(data[: HEADER_LIMIT + 16])
    try:
        reader = _HEADERS[npy.read_magic(stream)]
        shape, fortran, dtype = reader(stream, max_header_size=HEADER_LIMIT)
    except (*_BROKEN, tokenize.TokenError) as error:
        refuse("E-RESULT-FORM", f"{what} is no .npy: {str(error)[:80] or type(error).__name__}")
    plain = all(type(n) is int and n >= 0 for n in shape) and len(shape) <= DIMENSIONS
    if fortran or not plain or str(dtype) not in ITEM_SIZES:
        refuse("E-RESULT-FORM", f"{what} is no .npy of plain numbers in C order")
    return dtype, shape, stream.tell()
