"""Drift tools against loops over their definitions, and what chance alone must give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orchestrator.variance import intervals
from orchestrator.variance.bootstrap import bootstrap
from orchestrator.variance.drift import mmd, psi

POINTS = hnp.arrays(np.float64, (6, 2), elements=st.floats(-5, 5))
VALUES = hnp.arrays(np.float64, 50, elements=st.floats(-5, 5))


@settings(max_examples=30)
@given(POINTS, POINTS)
def test_mmd_agrees_with_loops_and_is_symmetric(x: Any, y: Any) -> None:
    found = mmd(x, y, seed=0, permutations=20)
    if found.bandwidth is None:
        assert found.mmd2 == 0
        return

    def k(a: Any, b: Any) -> float:
        assert found.bandwidth is not None
        return math.exp(-sum((a - b) ** 2) / (2 * found.bandwidth**2))

    def within(v: Any) -> float:
        return sum(k(v[i], v[j]) for i in range(6) for j in range(6) if i != j) / 30

    between = sum(k(a, b) for a in x for b in y) / 36
    assert found.mmd2 == pytest.approx(within(x) + within(y) - 2 * between, abs=1e-9)
    assert mmd(y, x, seed=0, permutations=20).mmd2 == pytest.approx(found.mmd2, abs=1e-9)
    assert 1 / 21 <= found.p <= 1


def test_mmd_finds_a_shift_and_not_a_resample() -> None:
    rng = np.random.default_rng(7)
    x, same = rng.normal(0, 1, (100, 3)), rng.normal(0, 1, (80, 3))
    assert mmd(x, same + 1, seed=1).p == 1 / 501
    assert mmd(x, same, seed=1).p > 0.05
    assert mmd(x, same, seed=1) == mmd(x, same, seed=1)


def test_mmd_rejects_at_its_level_under_the_null() -> None:
    rng = np.random.default_rng(11)
    p = [mmd(rng.normal(size=(12, 1)), rng.normal(size=(9, 1)), 3, permutations=99).p
         for _ in range(200)]  # fmt: skip
    assert intervals.lower_bound(sum(v <= 0.05 for v in p), 200, 0.999) <= 0.05


def test_mmd_of_equal_points_and_of_too_few() -> None:
    assert mmd(np.ones((3, 2)), np.ones((4, 2)), seed=0).p == 1.0
    for bad in (np.ones((1, 2)), np.full((3, 2), np.nan), np.ones((4000, 2))):
        with pytest.raises(ValueError, match="MMD"):
            mmd(bad, np.zeros((3, 2)), seed=0)


def test_psi_by_hand() -> None:
    r = np.arange(1, 101, dtype=float)  # deciles at 10.9, 20.8, ... : ten values in each bin
    o = np.full(100, 5.0)
    low, rest = 100.5 / 105, 0.5 / 105
    e = 10.5 / 105
    expected = (low - e) * math.log(low / e) + 9 * (rest - e) * math.log(rest / e)
    assert psi(r, o) == pytest.approx(expected)


@given(VALUES, VALUES, st.randoms())
def test_psi_is_nothing_against_itself_and_ignores_order(r: Any, o: Any, random: Any) -> None:
    order = list(range(50))
    random.shuffle(order)
    assert psi(r, r) == 0
    assert psi(r[order], o) == pytest.approx(psi(r, o), abs=1e-12)
    assert psi(r, o) >= 0


def test_psi_needs_numbers() -> None:
    assert psi(np.array([1.0, np.nan]), np.array([1.0, np.inf])) == 0
    with pytest.raises(ValueError, match="finite"):
        psi(np.array([np.nan]), np.array([1.0]))


def test_bootstrap_is_seeded_paired_and_about_as_wide_as_theory() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, 400)
    y = x + 0.5
    found = bootstrap(lambda i: float(x[i].mean()), 400, seed=4)
    theory = intervals.mean(x)
    assert found == bootstrap(lambda i: float(x[i].mean()), 400, seed=4)
    assert found.low is not None
    assert found.high is not None
    assert theory.low is not None
    assert theory.high is not None
    assert found.high - found.low == pytest.approx(theory.high - theory.low, rel=0.15)
    shift = bootstrap(lambda i: float((y[i] - x[i]).mean()), 400, seed=4)
    assert shift.low == pytest.approx(0.5)
    assert shift.high == pytest.approx(0.5)


def test_means_by_hand() -> None:
    found = intervals.mean(np.array([1.0, 2.0, 3.0, np.nan]))
    assert (found.value, found.n) == (2.0, 3)
    assert found.high == pytest.approx(2 + 4.302653 / math.sqrt(3))
    assert intervals.mean(np.array([np.nan])) == intervals.Estimate(None, 0, None, None)


def test_one_sided_mcnemar_by_hand() -> None:
    assert intervals.p_loss(0, 0) == 1.0
    assert intervals.p_loss(5, 0) == 1.0
    assert intervals.p_loss(0, 5) == 1 / 32
    assert intervals.p_loss(1, 3) == pytest.approx(5 / 16)


def test_two_sided_tango_interval_holds_both_bounds() -> None:
    found = intervals.paired(2, 9, 100)
    assert found.difference == -0.07
    assert found.low == intervals.tango_lower(2, 9, 100, 0.975)
    assert found.high == intervals.tango_upper(2, 9, 100, 0.975)
    assert intervals.paired(0, 0, 0).difference is None
