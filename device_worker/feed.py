"""Samples of the input tensors, one at a time, always at the same memory alignment.

Kernels may pick another summation order for another alignment, which would look like an unstable
model; and a page fault of a mapped file must not fall into the timed call.
"""

from __future__ import annotations

from typing import List, Literal, Optional, Sequence, Tuple

import numpy as np

from device_worker.arrays import Array

_ALIGNMENT = 64
_IN_MEMORY = 64 << 20


def load(path: str) -> Array:
    """The array in a .npy file: an aligned copy, or mapped when it is over 64 MiB.

    Raises ValueError, EOFError or OSError for a file that is none, pickled ones included.
    """
    mode: Literal["r"] = "r"
    mapped: Array = np.load(path, mmap_mode=mode, allow_pickle=False)
    if mapped.nbytes > _IN_MEMORY:
        return mapped
    return aligned(mapped)


def aligned(array: Array) -> Array:
    """A C-contiguous copy at the alignment that every input has."""
    copy = _aligned(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


class Feed:
    """``arrays``: [samples, ...] in the model's input order."""

    def __init__(self, arrays: Sequence[Array]) -> None:
        self._sources: List[Tuple[Array, Optional[Array]]] = [
            (array, None if _direct(array) else _aligned((1, *array.shape[1:]), array.dtype))
            for array in arrays
        ]

    def sample(self, index: int) -> List[Array]:
        """[1, ...] of each tensor, C-contiguous; valid until the next call."""
        found = []
        for array, buffer in self._sources:
            if buffer is None:
                found.append(array[index : index + 1])
            else:
                buffer[0] = array[index]
                found.append(buffer)
        return found


def _direct(array: Array) -> bool:
    """Whether every sample lies aligned in memory as it is."""
    in_memory = not isinstance(array, np.memmap) and array.flags.c_contiguous
    return in_memory and not any(
        value % _ALIGNMENT for value in (array.ctypes.data, array[:1].nbytes)
    )


def _aligned(shape: Tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """An empty C-contiguous array whose data starts at a multiple of 64 bytes."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
