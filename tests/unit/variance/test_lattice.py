"""Codes are read only where the whole tensor lies on its lattice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from orchestrator.variance.lattice import Output, bits, codes, real
from tests.unit.variance.arrays import f32, i8, u8

SCALES = st.floats(2**-20, 2**10, width=32)


def head(values: NDArray[Any], scale: float = 0.1, zp: int = 3) -> Output:
    return Output("y", values, scale, zp, -128, 127)


def dequantised(q: NDArray[Any], scale: float, zp: int) -> NDArray[np.float32]:
    """As a runtime does it: integers to float32, one float32 product."""
    return (q.astype(np.int32) - zp).astype(np.float32) * np.float32(scale)


@given(hnp.arrays(np.int8, (4, 3)), SCALES, st.integers(-128, 127))
def test_dequantised_codes_are_found_again(q: NDArray[np.int8], scale: float, zp: int) -> None:
    found = codes(head(dequantised(q, scale, zp), scale, zp))
    assert found is not None
    assert found.tolist() == q.tolist()


@given(hnp.arrays(np.int8, (4, 3)), SCALES, st.integers(-128, 127), st.integers(0, 11))
def test_one_value_beside_the_lattice_means_no_codes(
    q: NDArray[np.int8], scale: float, zp: int, where: int
) -> None:
    x = dequantised(q, scale, zp)
    x.flat[where] = np.nextafter(x.flat[where], np.float32(np.inf))
    assert codes(head(x, scale, zp)) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_have_no_codes(bad: float) -> None:
    assert codes(head(f32([[0.0, bad]]))) is None


def test_codes_outside_the_range_are_no_codes() -> None:
    far = dequantised(np.array([[128]]), 0.1, 3)
    assert codes(head(far)) is None
    assert codes(Output("y", far, 0.1, 3)) is not None
    assert codes(Output("y", f32([[1e30]]), 1.0, 0)) is None  # every float is a multiple up there


@pytest.mark.parametrize("scale", [None, 0.0, -0.1, float("nan"), float("inf")])
def test_no_lattice_no_codes(scale: float | None) -> None:
    assert codes(Output("y", np.zeros((2, 2), np.float32), scale, 0)) is None


def test_integers_are_their_own_codes_known_lattice_or_not() -> None:
    q = u8([[0, 255]])
    for output in (Output("y", q), Output("y", q, 0.5, 128, 0, 255)):
        found = codes(output)
        assert found is not None
        assert found.tolist() == [[0, 255]]


def test_real_values() -> None:
    assert real(Output("y", i8([[3, -128]]), 0.5, 1)).tolist() == [[1.0, -64.5]]
    assert real(Output("y", i8([[3]]))).tolist() == [[3.0]]
    assert real(head(f32([[1.5]]))).tolist() == [[1.5]]


def test_bits_tell_zero_from_minus_zero_and_know_a_nan_again() -> None:
    zero, minus = (bits(Output("y", f32([[x]]))) for x in (0.0, -0.0))
    assert zero != minus
    nan = bits(Output("y", f32([[np.nan]])))
    assert nan == nan.copy()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float16, np.float64, np.bool_])
def test_bits_of_every_item_size(dtype: Any) -> None:
    assert bits(Output("y", np.zeros((2, 3, 4), dtype))).shape == (2, 12)
