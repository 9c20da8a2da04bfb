"""Bounds against closed forms, scipy's exact routines, published values and exact coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, norm

from orchestrator.variance import intervals as iv

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@st.composite
def paired(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 300))
    gained = draw(st.integers(0, n))
    return gained, draw(st.integers(0, n - gained)), n


@given(COUNTS)
def test_clopper_pearson_equals_scipys(count: tuple[int, int]) -> None:
    k, n = count
    expected = binomtest(k, n).proportion_ci(0.95, method="exact")
    low, high = iv.clopper_pearson(k, n)
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)


def test_published_clopper_pearson_examples() -> None:
    """Fagerland, Lydersen, Laake: Statistical Analysis of Contingency Tables, chapter 2."""
    assert iv.clopper_pearson(13, 16) == pytest.approx((0.5435, 0.9595), abs=5e-5)
    assert iv.clopper_pearson(10, 10) == pytest.approx((0.6915, 1.0), abs=5e-5)
    assert iv.clopper_pearson(0, 10) == pytest.approx((0.0, 0.3085), abs=5e-5)


@pytest.mark.parametrize("n", [1, 8, 597, 598, 10_000])
def test_zero_and_all_events_have_closed_forms(n: int) -> None:
    assert iv.upper_bound(0, n) == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-12)
    assert iv.lower_bound(n, n) == pytest.approx(0.05 ** (1 / n), rel=1e-12)
    assert iv.lower_bound(0, n) == 0.0
    assert iv.upper_bound(n, n) == 1.0


@given(COUNTS)
def test_one_sided_bounds_invert_the_binomial_tails(count: tuple[int, int]) -> None:
    k, n = count
    if k > 0:
        assert binom.sf(k - 1, n, iv.lower_bound(k, n)) == pytest.approx(0.05, rel=1e-6)
    if k < n:
        assert binom.cdf(k, n, iv.upper_bound(k, n)) == pytest.approx(0.05, rel=1e-6)


@given(COUNTS, st.floats(0.001, 0.5))
def test_a_small_p_above_is_a_lower_bound_over_the_limit(
    count: tuple[int, int], limit: float
) -> None:
    k, n = count
    p, low = iv.p_above(k, n, limit), iv.lower_bound(k, n)
    assert p == pytest.approx(binom.sf(k - 1, n, limit), rel=1e-6, abs=1e-12)
    if abs(low - limit) > 1e-9:
        assert (p < 0.05) == (low > limit)


@pytest.mark.parametrize(("limit", "needed"), [(0.005, 598), (0.01, 299), (0.05, 59), (0.5, 5)])
def test_samples_needed_is_the_smallest_that_can_pass(limit: float, needed: int) -> None:
    assert iv.samples_needed(limit) == needed
    assert iv.upper_bound(0, needed) <= limit < iv.upper_bound(0, needed - 1)


def test_no_sample_bounds_a_rate_by_zero() -> None:
    with pytest.raises(ValueError, match="zero"):
        iv.samples_needed(0.0)


def test_nothing_is_known_of_no_trials() -> None:
    assert iv.rate(0, 0) == iv.Rate(0, 0, None, 0.0, 1.0)
    assert (iv.lower_bound(0, 0), iv.upper_bound(0, 0)) == (0.0, 1.0)
    assert (iv.tango_lower(0, 0, 0), iv.tango_upper(0, 0, 0)) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("gained", "lost", "n", "level", "low", "high", "digits"),
    [
        # contingencytables (R), Cavo et al. 2012 and Bentur et al. 2009; the latter as in
        # Fagerland, Lydersen, Laake 2014 (Stat. Med. 33:2850).
        (6, 16, 161, 0.95, -0.1240, -0.0054, 4),
        (1, 7, 21, 0.95, -0.517, -0.026, 3),
        # PropCIs::scoreci.mp(25, 28, 618, .90) and (60, 20, 1000, .95); its b is our `lost`.
        (28, 25, 618, 0.90, -0.0148, 0.0247, 4),
        (20, 60, 1000, 0.95, -0.0584, -0.0231, 4),
    ],
)
def test_published_tango_examples(
    gained: int, lost: int, n: int, level: float, low: float, high: float, digits: int
) -> None:
    side = (1 + level) / 2
    assert round(iv.tango_lower(gained, lost, n, side), digits) == low
    assert round(iv.tango_upper(gained, lost, n, side), digits) == high


def test_no_discordant_pairs_have_a_closed_form() -> None:
    z2 = norm.ppf(0.95) ** 2
    assert iv.tango_lower(0, 0, 1000) == pytest.approx(-z2 / (1000 + z2), abs=1e-9)


@given(paired())
def test_tango_is_antisymmetric_and_holds_the_estimate(table: tuple[int, int, int]) -> None:
    gained, lost, n = table
    low, high = iv.tango_lower(gained, lost, n), iv.tango_upper(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert high == -iv.tango_lower(lost, gained, n)
    assert iv.tango_lower(gained, lost, n, 0.99) <= low


@pytest.mark.parametrize("table", [(6, 16, 161), (1, 7, 21), (3, 0, 50), (0, 12, 400)])
def test_the_bound_solves_the_score_equation(table: tuple[int, int, int]) -> None:
    """With the constrained maximum likelihood found by search instead of by Tango's formula."""
    gained, lost, n = table
    d0 = iv.tango_lower(gained, lost, n)

    def minus_log_likelihood(q: float) -> float:
        cells = ((gained, q + d0), (lost, q), (n - gained - lost, 1 - 2 * q - d0))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    edges = (max(0.0, -d0) + 1e-12, (1 - d0) / 2 - 1e-12)
    q = minimize_scalar(
        minus_log_likelihood, bounds=edges, method="bounded", options={"xatol": 1e-12}
    ).x
    score = (gained - lost - n * d0) / math.sqrt(n * (2 * q + d0 * (1 - d0)))
    assert score == pytest.approx(norm.ppf(0.95), abs=1e-4)


@pytest.mark.parametrize(
    ("p_gained", "p_lost"), [(0.05, 0.05), (0.02, 0.06), (0.10, 0.04), (0.2, 0.3)]
)
def test_tango_bounds_cover_as_promised(p_gained: float, p_lost: float) -> None:
    """Exact one-sided coverage over all tables of n = 80; a score bound is approximate."""
    n, true = 80, p_gained - p_lost
    covered = total = 0.0
    for discordant in range(n + 1):
        p_d = binom.pmf(discordant, n, p_gained + p_lost)
        if p_d < 1e-7:
            continue
        for gained in range(discordant + 1):
            p = p_d * binom.pmf(gained, discordant, p_gained / (p_gained + p_lost))
            if p < 1e-8:
                continue
            total += p
            covered += p * (iv.tango_lower(gained, discordant - gained, n) <= true)
    assert total == pytest.approx(1, abs=1e-4)
    assert 0.935 <= covered <= 0.985


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    assert iv.mcnemar(b, c) == pytest.approx(expected, rel=1e-9)


def test_published_mcnemar_example() -> None:
    assert iv.mcnemar(6, 16) == pytest.approx(0.052479, abs=5e-7)


def test_holm_steps_down_and_stops_at_the_first_that_stays() -> None:
    assert iv.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert iv.holm([0.02, 0.02]) == [0.04, 0.04]
    assert iv.holm([0.9, 0.8]) == [1.0, 1.0]
    assert iv.holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_no_more_than_plain_tests_and_no_less_than_bonferroni(p: list[float]) -> None:
    for value, adjusted in zip(p, iv.holm(p), strict=True):
        assert value <= adjusted <= min(1.0, value * len(p))


@given(st.lists(st.floats(0, 1), max_size=12), st.randoms())
def test_holm_keeps_the_order_of_p_and_ignores_that_of_the_list(
    p: list[float], random: Any
) -> None:
    order = list(range(len(p)))
    random.shuffle(order)
    adjusted = iv.holm(p)
    assert iv.holm([p[i] for i in order]) == [adjusted[i] for i in order]
    assert [adjusted[i] for i in np.argsort(p)] == sorted(adjusted)


@given(st.integers(1, 60), st.sampled_from([0.1, 0.5, 0.9]))
def test_order_statistics_enclose_a_quantile_as_often_as_they_say(n: int, q: float) -> None:
    """Of 0 .. n-1 the ends tell their ranks, and the binomial how often those enclose it."""
    found = iv.quantile(np.arange(n, dtype=float), q)
    assert found.value == pytest.approx(np.quantile(np.arange(n), q))
    below = binom.cdf(-1 if found.low is None else found.low, n, q)
    above = 0.0 if found.high is None else binom.sf(found.high, n, q)
    assert below <= 0.025 + 1e-12 or found.low is None
    assert above <= 0.025 + 1e-12
    # The next order statistics would be too near: the interval is no wider than it must be.
    assert binom.cdf(0 if found.low is None else found.low + 1, n, q) > 0.025
    assert binom.sf(n - 1 if found.high is None else found.high - 1, n, q) > 0.025


def test_a_difference_of_paired_differences() -> None:
    """Equal and opposite shares: symmetric about its value, narrower than both ends apart."""
    a, b = iv.paired(0, 30, 100), iv.paired(10, 10, 300)
    found = iv.apart(a, b)
    assert (found.value, found.n) == (-0.3, 400)
    assert found.low is not None
    assert found.high is not None
    assert a.low - b.high < found.low < -0.3 < found.high < a.high - b.low
    mirrored = iv.apart(b, a)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert iv.apart(a, iv.paired(0, 0, 0)) == iv.Estimate(None, 100, None, None)


def test_a_difference_of_paired_differences_encloses_the_true_one() -> None:
    """900 tables at a true difference of -0.1: a count that 95 % coverage does not contradict."""
    random, hits = np.random.default_rng(0), 0
    for _ in range(900):
        lost, (gained_there, lost_there, _) = (
            int(random.binomial(60, 0.15)),
            map(int, random.multinomial(200, (0.02, 0.07, 0.91))),
        )
        found = iv.apart(iv.paired(0, lost, 60), iv.paired(gained_there, lost_there, 200))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= -0.1 <= found.high
    assert iv.upper_bound(hits, 900, 0.999) >= 0.95


@pytest.mark.parametrize("count", [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(count: tuple[int, int]) -> None:
    for function in (iv.lower_bound, iv.upper_bound):
        with pytest.raises(ValueError, match="binomial"):
            function(*count)


@pytest.mark.parametrize("table", [(-1, 0, 5, 0.95), (3, 3, 5, 0.95), (1, 1, 5, 0.5)])
def test_impossible_tables_are_refused(table: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match="paired"):
        iv.tango_lower(*table)
