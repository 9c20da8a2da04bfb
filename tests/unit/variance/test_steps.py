"""Codes beside the reals that they should be."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.variance.lsb_error import Distance, StepSums


def test_distances_by_hand() -> None:
    sums = StepSums(0.5, 10)
    sums.add(np.array([10, 12, 127], np.int8), np.array([0.1, 0.0, 1e9], np.float32))
    sums.add(np.array([15], np.int8), np.array([-1.0], np.float32))
    sums.add(np.array([1, 1], np.int8), np.array([np.nan, np.inf], np.float32))
    found = sums.distance()
    # 0.2 steps; exactly 2 is not beyond 2; clipped at 127: none; 15 instead of 8. An infinite
    # real is clipped like any other, a NaN is left out: 1 instead of 127.
    assert found is not None
    assert (found.n, found.far, found.max_steps) == (5, 2, 126)
    squares = 0.2**2 + 2**2 + 0 + 7**2 + 126**2
    assert found.rmse_steps == pytest.approx(np.sqrt(squares / 5))


def test_nothing_has_no_distance_and_rounding_half_a_step() -> None:
    assert StepSums(1.0, 0).distance() is None
    real = np.linspace(-100, 100, 4001)
    sums = StepSums(1.0, 0)
    sums.add(np.rint(real).astype(np.int8), real)
    found = sums.distance()
    assert found == Distance(4001, 0, 0.5, found.rmse_steps if found else 0.0)
    assert found.rmse_steps == pytest.approx(1 / np.sqrt(12), rel=0.01)


def test_what_cannot_be_compared() -> None:
    codes = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match="beside"):
        StepSums(1.0, 0).add(codes, np.zeros((3, 2)))
    with pytest.raises(ValueError, match="beside"):
        StepSums(1.0, 0).add(codes.astype(np.float32), np.zeros((2, 3)))
