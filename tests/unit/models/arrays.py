"""Float weights, and the same weights quantised as converters do it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.weights import Found, Weights

Array = NDArray[Any]


def quantised(
    values: Array, axis: int | None = None, unsigned: bool = False
) -> tuple[Array, Array, Array]:
    """Codes, scale and zero point, per tensor or one per index of ``axis``."""
    rest = None if axis is None else tuple(a for a in range(values.ndim) if a != axis)
    low, high = values.min(axis=rest, keepdims=True), values.max(axis=rest, keepdims=True)
    if unsigned:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scale = ((high - low) / 255).astype(np.float32)
        zero = np.rint(-low / scale).astype(np.int64)
        codes = np.clip(np.rint(values / scale) + zero, 0, 255).astype(np.uint8)
    else:
        scale = (np.maximum(-low, high) / 127).astype(np.float32)
        zero = np.zeros(scale.shape, np.int64)
        codes = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
    return codes, scale.ravel(), zero.ravel()


def of_int8(tensors: dict[str, Array], axis: int | None = 0, unsigned: bool = False) -> Weights:
    found = Found()
    for name, values in tensors.items():
        codes, scale, zero = quantised(values, axis, unsigned)
        limits = np.iinfo(codes.dtype)
        bounds = int(limits.min), int(limits.max)
        found.add_codes(name, codes.astype(np.int64), scale, zero, axis or 0, bounds)
    return found.done()


def of_float(tensors: dict[str, Array]) -> Weights:
    found = Found()
    for name, values in tensors.items():
        found.add_real(name, values)
    return found.done()


def net(seed: int = 0) -> dict[str, Array]:
    """A convolution, a depthwise one, two of equal shape, and a dense layer; float32."""
    random = np.random.default_rng(seed)
    shapes = {
        "conv": (16, 3, 3, 8),
        "depthwise": (1, 3, 3, 16),
        "twin": (16, 16),
        "other twin": (16, 16),
        "dense": (10, 48),
    }
    return {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
