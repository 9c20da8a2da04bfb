"""Short names for small typed arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def i8(values: Any) -> NDArray[np.int8]:
    return np.array(values, np.int8)


def i16(values: Any) -> NDArray[np.int16]:
    return np.array(values, np.int16)


def i32(values: Any) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def u8(values: Any) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)


def f32(values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)
