"""Layers: figures worked by hand, a naive second count of each, and what equality must give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnxruntime.quantization.qdq_loss_debug import compute_signal_to_quantization_noice_ratio
from scipy import stats

from orchestrator.variance.bins import BINS, PER_WIDE
from orchestrator.variance.lattice import Array, Output, real
from orchestrator.variance.layer import LayerStats, LayerSums, amplification, layer_stats
from tests.unit.variance.arrays import f32, i8

FINITE = st.floats(-100, 100, width=32)


def quantised(x: Array, scale: float, zero: int = 0) -> Output:
    q = np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)
    return Output("t", q, scale, zero)


def of(x: Any, y: Any, **lattice: Any) -> LayerStats:
    return layer_stats(f32(x), Output("t", y, **lattice))


def test_every_figure_by_hand() -> None:
    # Real values of the codes: -128, 0, 2, 4; errors 12, 0, 0, -3; one x of four in reach of none.
    found = of([-140, 0, 2, 7], i8([-128, 0, 2, 4]), scale=1.0, zero_point=0)
    assert (found.n, found.nonfinite) == (4, 0)
    signal, noise = 140**2 + 4 + 49, 144 + 9
    assert found.sqnr_db == pytest.approx(20 * math.log10(math.sqrt(signal) / math.sqrt(noise)))
    assert found.effective_bits == pytest.approx((found.sqnr_db or 0) / 6.02)
    assert found.noise_ratio == pytest.approx(noise / signal)
    rmse = math.sqrt(noise / 4)
    assert found.rmse_scale == pytest.approx(rmse)
    assert found.norm_rmse == pytest.approx(rmse / 147)
    dot = 140 * 128 + 4 + 28
    assert found.cosine == pytest.approx(dot / math.sqrt(signal * (128**2 + 4 + 16)))
    assert (found.max_abs, found.bias) == (12, (12 - 3) / 4)
    assert (found.clip_rate, found.clip_excess) == (0.25, 0.25)
    assert (found.range_overflow, found.code_utilisation) == (0.25, 4 / 256)
    assert found.w1_sigma == pytest.approx((12 + 3) / 4 / np.std([-140, 0, 2, 7]))
    assert found.bins == 148 + 2  # one for each step from -140 to 7, and what lies outside


@given(hnp.arrays(np.int8, (5, 4)), st.floats(2**-10, 2**4, width=32), st.integers(-128, 127))
def test_equal_values_differ_in_exactly_nothing(q: NDArray[np.int8], scale: float, zp: int) -> None:
    other = Output("t", q, scale, zp)
    x = real(other).reshape(q.shape)
    found = layer_stats(x, other)
    assert (found.noise_ratio, found.rmse_scale, found.norm_rmse) == (0, 0, 0)
    assert (found.max_abs, found.bias, found.kl, found.js, found.w1_sigma) == (0, 0, 0, 0, 0)
    assert (found.clip_excess, found.range_overflow, found.sqnr_db) == (0, 0, math.inf)
    assert found.cosine == (1.0 if x.any() else None)


@given(hnp.arrays(np.float32, 40, elements=FINITE), hnp.arrays(np.float32, 40, elements=FINITE))
def test_a_second_naive_count_and_scipy_agree(
    x: NDArray[np.float32], y: NDArray[np.float32]
) -> None:
    found = layer_stats(x, Output("t", y))
    a, b = [float(v) for v in x], [float(v) for v in y]
    assert found.max_abs == max(abs(v - u) for u, v in zip(a, b, strict=True))
    assert found.bias == pytest.approx(sum(b) / 40 - sum(a) / 40, abs=1e-6)
    w1, sigma = stats.wasserstein_distance(x, y), float(np.std(x.astype(np.float64)))
    if sigma > 1e-3:
        bin_ = (max(a) - min(a)) / BINS / PER_WIDE
        assert found.w1_sigma is not None
        assert (w1 - bin_) / sigma - 1e-9 <= found.w1_sigma <= w1 / sigma * (1 + 1e-6) + 1e-9
    assert found.rmse_scale is found.clip_rate is found.code_utilisation is None
    if min(a) + 1e-3 < max(a):
        width = (max(a) - min(a)) / BINS * (1 + 2**-20)
        edges = min(a) + (np.arange(BINS + 1) - 2**-10) * width
        (p, _), (r, _) = np.histogram(a, edges), np.histogram(b, edges)
        low, high = sum(v < edges[0] for v in b), sum(v > edges[-1] for v in b)
        p, r = np.array([0, *p, 0]) + 0.5, np.array([low, *r, high]) + 0.5
        assert found.kl == pytest.approx(stats.entropy(p, r), rel=1e-2, abs=1e-9)


@given(hnp.arrays(np.float32, (6, 3), elements=FINITE), st.randoms())
def test_the_order_of_samples_changes_nothing(x: NDArray[np.float32], random: Any) -> None:
    order = list(range(6))
    random.shuffle(order)
    straight, shuffled = (layer_stats(v, quantised(v, 0.5)) for v in (x, x[order]))
    for name, value in vars(straight).items():
        if value is None:
            assert getattr(shuffled, name) is None
        else:
            assert getattr(shuffled, name) == pytest.approx(value, rel=1e-9, abs=1e-9), name


@given(hnp.arrays(np.float32, (8, 3), elements=FINITE), st.integers(1, 7), st.booleans())
def test_blocks_add_up_to_the_whole(x: NDArray[np.float32], cut: int, coded: bool) -> None:
    """Codes exactly; of floats all but what is binned, for the first block sets the bins."""
    other = quantised(x, 0.5) if coded else Output("t", np.rint(x))
    whole, sums = layer_stats(x, other), LayerSums()
    for part in (slice(cut), slice(cut, None)):
        sums.add(x[part], Output("t", other.values[part], other.scale, other.zero_point))
    for name, value in vars(whole).items():
        if value is not None and (coded or name not in ("bins", "kl", "js", "w1_sigma")):
            found = getattr(sums.stats(), name)
            assert found == pytest.approx(value, rel=1e-9, abs=1e-9), name


def test_of_codes_the_distance_is_scipys_also_far_outside_of_their_range() -> None:
    x = np.random.default_rng(3).normal(0, 40, 5000).astype(np.float32)
    x[:50] *= 1000
    other = quantised(x, 0.5, 7)
    w1 = stats.wasserstein_distance(x, real(other).ravel())
    expected = w1 / float(np.std(x.astype(np.float64)))
    assert layer_stats(x, other).w1_sigma == pytest.approx(expected, rel=1e-4)


def test_codes_of_sixteen_bits_have_wider_bins() -> None:
    x = np.random.default_rng(3).normal(0, 1, 5000).astype(np.float32)
    q = np.rint(x / 2**-13).clip(-(2**15), 2**15 - 1).astype(np.int16)
    found = layer_stats(x, Output("t", q, 2**-13, 0))
    assert found.code_utilisation == np.unique(q).size / 2**16
    assert (found.kl or 0) < 1e-2
    assert found.bins <= BINS + 2


def test_a_good_quantisation_looks_good_and_a_clipped_one_does_not() -> None:
    x = np.random.default_rng(5).normal(0, 1, 20_000).astype(np.float32)
    good, narrow = (layer_stats(x, quantised(x, step)) for step in (8 / 256, 2 / 256))
    assert good.rmse_scale == pytest.approx(1 / math.sqrt(12), rel=0.02)
    assert good.kl is not None
    assert good.kl < 1e-3
    assert good.clip_excess == pytest.approx(0, abs=1e-3)
    beyond = float((np.abs(x) > 1).mean())
    assert narrow.range_overflow == pytest.approx(beyond, abs=0.01)
    assert narrow.clip_excess == pytest.approx(beyond, abs=0.01)
    assert (narrow.w1_sigma or 0) > 0.1
    assert (narrow.js or 0) > 0.1


def test_zeros_of_a_relu_are_no_clipping() -> None:
    x = np.maximum(np.random.default_rng(5).normal(0, 1, 1000), 0).astype(np.float32)
    found = layer_stats(x, quantised(x, 6 / 255, -128))
    assert (found.clip_rate or 0) > 0.4
    assert found.clip_excess == 0


def test_a_calibrated_range_that_is_given_counts() -> None:
    x = f32([-2, -1, 0, 1, 2, 3])
    assert layer_stats(x, quantised(x, 0.1), calibrated=(-1, 2)).range_overflow == 2 / 6
    assert layer_stats(x, Output("t", x), calibrated=(-1, 2)).range_overflow == 2 / 6
    assert layer_stats(x, Output("t", x)).range_overflow is None


def test_values_that_are_none_are_counted_apart() -> None:
    found = of([1, np.nan, 3, 4], f32([1, 2, np.inf, 4]))
    assert (found.n, found.nonfinite, found.max_abs) == (2, 2, 0)
    nothing = of([np.nan], f32([0]))
    assert (nothing.n, nothing.nonfinite, nothing.sqnr_db, nothing.kl) == (0, 1, None, None)


def test_constant_layers_have_no_scale_of_their_own() -> None:
    found = of([3, 3, 3], f32([4, 4, 4]))
    assert (found.norm_rmse, found.w1_sigma, found.max_abs) == (None, None, 1)
    silent = of([0, 0], f32([0, 1]))
    assert (silent.sqnr_db, silent.noise_ratio, silent.cosine) == (-math.inf, None, None)


def test_what_would_have_to_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(1, 2\)"):
        of([1, 2], f32([[1, 2]]))
    with pytest.raises(ValueError, match="scale"):
        of([1, 2], i8([1, 2]))


def test_amplification_is_the_log_of_the_relative_error() -> None:
    found = amplification([0.01, 0.04, 0.04, 0.0, 0.01, None, math.inf])
    assert found[1] == pytest.approx(math.log(2))
    assert found[2] == 0
    assert [found[i] for i in (0, 3, 4, 5, 6)] == [None] * 5
    assert amplification([]) == []


@given(
    hnp.arrays(np.float32, 30, elements=st.floats(-50, 50, width=32)),
    hnp.arrays(np.float32, 30, elements=st.floats(-50, 50, width=32)),
)
def test_signal_to_noise_is_onnx_runtimes(x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    """Whose own floor for both norms is the smallest difference of float32, 1.2e-7."""
    if min(np.linalg.norm(x), np.linalg.norm(x - y)) < 1e-3:
        return
    expected = compute_signal_to_quantization_noice_ratio(x, y)
    assert of(x, y).sqnr_db == pytest.approx(float(expected), abs=1e-4)
