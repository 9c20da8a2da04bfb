"""What is asked of float32: functions, fused products, denormals; the same in both formats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from orchestrator.fingerprint.constants import seed_of
from orchestrator.fingerprint.golden import Floats
from orchestrator.fingerprint.probe import Feed

Function = Callable[[Floats], Floats]
Singles = NDArray[np.float32]


def logistic(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


def hard_swish(x: Floats) -> Floats:
    return np.asarray(x * np.clip(x + 3, 0, 6) / 6)


def product_feeds() -> tuple[Feed, Feed]:
    """a [1, 16, 2], b [1, 16, 2] of 13 bits each: their products need 26, a float32 has 24."""
    low, high = 4096, 8191
    return (
        Feed("random", (1, 16, 2), "float32", low, high, seed_of("product a"), 2.0**-13),
        Feed("random", (1, 16, 2), "float32", low, high, seed_of("product b"), 2.0**-13),
    )


def fused_or_not(a: Singles, b: Singles) -> dict[str, Singles]:
    """Mode -> a [R, M, 2] · b [R, 2, N] in float32, the second product fused into the sum or not.

    The products (26 bits) and sums of a product and a float32 here are exact in float64, so that
    one cast is one rounding.
    """
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    first, second = (wide_a[:, :, k, None] * wide_b[:, None, k, :] for k in (0, 1))
    rounded = first.astype(np.float32), second.astype(np.float32)
    return {
        "separate": rounded[0] + rounded[1],
        "fused": (rounded[0].astype(np.float64) + second).astype(np.float32),
        "fused, last term first": (rounded[1].astype(np.float64) + first).astype(np.float32),
    }


def denormals() -> Feed:
    """[1, 1, 256]: 1 … 256 times the least positive float32.

    TFLite on ARM may leave its worker in a mode in which the device could not make them.
    """
    return Feed("ramp", (1, 1, 256), "float32", 1, 256, scale=2.0**-149, sent=True)


def kept_or_flushed(x: Singles) -> dict[str, Singles]:
    return {"kept": x + x, "flushed to zero": np.zeros_like(x)}


def rows() -> Feed:
    """[1, 2048, 10] within ±8."""
    return Feed("random", (1, 2048, 10), "float32", -8192, 8192, seed_of("rows"), 2.0**-10)
