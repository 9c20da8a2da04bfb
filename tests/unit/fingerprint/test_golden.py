"""The golden reference against exact fractions, published examples and plain loops."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchestrator.fingerprint import golden
from orchestrator.fingerprint.golden import Scales

ACCUMULATORS = st.integers(-(1 << 20), 1 << 20)
MULTIPLIERS = st.floats(2.0**-12, 0.875, width=32)
POWERS = st.integers(1, 10)


def one(mode: str, acc: int, multiplier: float) -> int:
    return int(golden.ROUNDINGS[mode](np.array([acc]), Scales(1.0, multiplier, 1.0))[0])


@given(ACCUMULATORS, MULTIPLIERS)
def test_no_rounding_is_off_by_more_than_its_own_precision(acc: int, multiplier: float) -> None:
    exact = Fraction(acc) * Fraction(float(np.float32(multiplier)))
    for mode in golden.WIDE:
        # Half a step, and half of another where there are two roundings or a float32 product.
        slack = Fraction(1, 2) + Fraction(abs(exact)) / (1 << 22)
        slack += Fraction(1, 2) if mode.startswith("double") else 0
        assert abs(one(mode, acc, multiplier) - exact) <= slack, mode


@given(ACCUMULATORS, POWERS)
def test_ties_go_where_each_mode_says(acc: int, power: int) -> None:
    """Against a power of two every step of every mode is exact but the last."""
    exact = Fraction(acc, 1 << power)
    floor = acc >> power
    tie = exact - floor == Fraction(1, 2)
    nearest = floor if exact - floor < Fraction(1, 2) else floor + 1
    up = floor + 1
    wanted = {
        "half-even": floor + floor % 2,
        "half-away": up if acc > 0 else floor,
        "half-up": up,
        "rndnu": up,
    }
    for mode, code in wanted.items():
        assert one(mode, acc, 2.0**-power) == (code if tie else nearest), mode


@given(ACCUMULATORS, MULTIPLIERS)
def test_away_from_zero_is_symmetric(acc: int, multiplier: float) -> None:
    assert one("half-away", -acc, multiplier) == -one("half-away", acc, multiplier)


def test_the_example_on_which_double_rounding_was_reported() -> None:
    """tensorflow/tensorflow#25087: 7984 · 1583594044 / 2^(31+9) is just below 11.5."""
    mantissa, shift = 1583594044, 9
    multiplier = mantissa / 2.0**31 * 2.0**-shift
    scales = Scales(1.0, np.float64(multiplier), 1.0)
    found, exponent = golden.fixed_point(multiplier)
    assert (int(found), int(exponent)) == (mantissa, -shift)
    acc = np.array([7984])
    high = golden.high_product(acc, np.int64(mantissa))  # type: ignore[arg-type]
    assert int(golden.shift_away(high, shift)[0]) == 12
    assert int(golden.shift_up(acc * mantissa, 31 + shift)[0]) == 11
    assert scales.double.dtype == np.float64


@pytest.mark.parametrize("value", [1.0, 0.5, 0.75, 1e-3, 0.9999999999])
def test_fixed_point_keeps_31_bits(value: float) -> None:
    mantissa, exponent = golden.fixed_point(value)
    assert 1 << 30 <= int(mantissa) < 1 << 31
    assert float(mantissa) * 2.0 ** (int(exponent) - 31) == pytest.approx(value, rel=2.0**-31)


def test_a_multiplier_per_channel_is_that_of_each_channel() -> None:
    acc = np.arange(-300, 300).reshape(100, 6)
    scale_w = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], np.float32)
    for mode in golden.ROUNDINGS.values():
        whole = mode(acc, Scales(0.5, scale_w, 0.25))
        for channel in range(6):
            alone = mode(acc[:, channel], Scales(0.5, scale_w[channel], 0.25))
            assert np.array_equal(whole[:, channel], alone)


def test_rndnu16_narrows_the_accumulator_first() -> None:
    acc = np.arange(-60_000, 60_000, 7)
    scales = Scales(1.0, np.float32(0.0017), 1.0)
    apart = golden.rndnu16(acc, scales) - golden.rndnu(acc, scales)
    assert 0.01 < float((apart != 0).mean()) < 0.3
    assert int(np.abs(apart).max()) == 1


def test_left_over_channels_of_a_vector_are_rounded_twice() -> None:
    acc = np.repeat(np.arange(-64, 64)[:, None], 9, axis=1)
    scales = Scales(1.0, 0.0625, 1.0)
    found = golden.lanes(acc, scales)
    assert np.array_equal(found[:, :8], golden.double_up(acc, scales)[:, :8])
    assert np.array_equal(found[:, 8:], golden.double(acc, scales)[:, 8:])
    assert not np.array_equal(golden.double_up(acc, scales), golden.double(acc, scales))


def test_pairs_of_products_saturate_at_int16() -> None:
    """The case in which ONNX Runtime answers 32,767 instead of 64,770 without VNNI."""
    a, b = np.array([[255, 255]]), np.array([[127, -128], [127, -128]])
    assert golden.product(a, b).tolist() == [[64_770, -65_280]]
    assert golden.saturated_product(a, b).tolist() == [[32_767, -32_768]]


@given(
    arrays(np.int64, (3, 5), elements=st.integers(0, 255)),
    arrays(np.int64, (5, 2), elements=st.integers(-64, 63)),
)
def test_seven_bits_of_weights_never_saturate(
    a: np.typing.NDArray[np.int64], b: np.typing.NDArray[np.int64]
) -> None:
    assert np.array_equal(golden.saturated_product(a, b), golden.product(a, b))


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_convolution_is_its_sum(depthwise: bool) -> None:
    draw = np.random.RandomState(3)
    x = draw.randint(-9, 10, (2, 5, 6, 4)).astype(np.int64)
    weights = draw.randint(-9, 10, (1 if depthwise else 3, 2, 2, 4)).astype(np.int64)
    found = golden.convolved(x, weights)
    for b, i, j, n in np.ndindex(*found.shape):
        window = x[b, i : i + 2, j : j + 2]
        if depthwise:
            assert found[b, i, j, n] == (window[..., n] * weights[0, ..., n]).sum()
        else:
            assert found[b, i, j, n] == (window * weights[n]).sum()


@given(arrays(np.int64, 40, elements=st.integers(-500, 500)), st.sampled_from([4, 64]))
def test_averages_round_the_exact_quotient(total: np.typing.NDArray[np.int64], count: int) -> None:
    found = golden.averaged(total, count, 0, -128, 127)
    for mode, codes in found.items():
        limit = 1.0 if mode == "truncate" else 0.5
        assert (np.abs(codes - np.clip(total / count, -128, 127)) <= limit).all(), mode


@given(
    arrays(np.int64, 30, elements=st.integers(-128, 127)),
    arrays(np.int64, 30, elements=st.integers(-128, 127)),
)
def test_sums_are_near_the_exact_one_and_do_not_depend_on_the_order(
    a: np.typing.NDArray[np.int64], b: np.typing.NDArray[np.int64]
) -> None:
    steps, turned = Scales(0.0371, 0.0523, 0.0617), Scales(0.0523, 0.0371, 0.0617)
    exact = np.clip((a * 0.0371 + b * 0.0523) / 0.0617, -128, 127)
    for added in (golden.added_fixed, golden.added_float):
        there = added(a, b, steps, 0, -128, 127)
        back = added(b, a, turned, 0, -128, 127)
        for mode, codes in there.items():
            assert (np.abs(codes - exact) < 0.502).all(), mode
            assert np.array_equal(codes, back[mode])


def test_a_table_without_a_tie_has_one_answer() -> None:
    assert list(golden.tabulated(np.array([0.2, 1.7]), 0, -128, 127)) == ["exact"]
    tied = golden.tabulated(np.array([0.5, 2.5]), 0, -128, 127)
    assert {mode: codes.tolist() for mode, codes in tied.items()} == {
        "half-even": [0, 2],
        "half-away": [1, 3],
    }
