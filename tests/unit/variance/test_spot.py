"""Sizes of spot checks against SciPy's hypergeometric distribution."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from orchestrator.variance.spot import at_most, sample_size

TOTALS = st.integers(1, 3000)
SHARES = st.floats(0.0005, 0.9)
CONFIDENCES = st.floats(0.5, 0.9999)


def missed(total: int, different: int, drawn: int) -> float:
    return float(hypergeom.pmf(0, total, different, drawn))


@given(TOTALS, SHARES, CONFIDENCES)
def test_the_smallest_size_that_is_enough(total: int, share: float, confidence: float) -> None:
    n, different = sample_size(total, share, confidence), max(ceil(share * total), 1)
    slack = 1e-9
    assert 1 <= n <= total
    assert missed(total, different, n) <= 1 - confidence + slack
    assert n == 1 or missed(total, different, n - 1) > 1 - confidence - slack


@given(TOTALS, st.data(), CONFIDENCES)
def test_the_bound_is_the_largest_number_that_could_have_been_missed(
    total: int, data: st.DataObject, confidence: float
) -> None:
    drawn = data.draw(st.integers(1, total))
    most, slack = at_most(total, drawn, confidence), 1e-9
    assert 0 <= most <= total - drawn
    assert most == 0 or missed(total, most, drawn) > 1 - confidence - slack
    assert missed(total, most + 1, drawn) <= 1 - confidence + slack


@given(TOTALS, SHARES, CONFIDENCES)
def test_a_check_of_that_size_without_a_difference_bounds_the_share(
    total: int, share: float, confidence: float
) -> None:
    different = max(ceil(share * total), 1)
    assert at_most(total, sample_size(total, share, confidence), confidence) < different


@pytest.mark.parametrize(
    ("total", "drawn"), [(100, 95), (500, 225), (10_000, 294), (1_000_000, 299)]
)
def test_known_sizes(total: int, drawn: int) -> None:
    """299 is the size for an endless lot: 0.99**299 < 0.05."""
    assert sample_size(total, 0.01, 0.95) == drawn
