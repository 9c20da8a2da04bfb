"""Numbers that stand in the probes' models, the same on every machine and for ever."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray


def stream(name: str) -> np.random.RandomState:
    """A stream of its own per probe, so that adding one changes no other.

    The legacy generator, because its streams are frozen (NEP 19).
    """
    return np.random.RandomState(seed_of(name))


def seed_of(name: str) -> int:
    return zlib.crc32(name.encode())


def limits(dtype: str) -> tuple[int, int]:
    """Least and greatest code."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def odd(draw: np.random.RandomState, centre: float, count: int) -> NDArray[np.float32]:
    """``count`` multipliers around ``centre``, none of them a round number."""
    return np.asarray(centre * draw.uniform(0.6, 1.6, count), np.float32)
