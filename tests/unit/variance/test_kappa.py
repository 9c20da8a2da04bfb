"""Kappa against published tables, the jackknife, and the coverage that its interval promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.variance.intervals import clopper_pearson
from orchestrator.variance.kappa import Kappa, cohen, fleiss
from orchestrator.variance.tasks import NO_DECISION

Ints = NDArray[np.int64]

COHEN_1960 = [[88, 10, 2], [14, 40, 6], [18, 10, 12]]
"""Educ. Psychol. Meas. 20:37, table 1 (200 subjects, as counts): observed .70, chance .41."""

FLEISS_1981 = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]
"""Statistical Methods for Rates and Proportions, table 13.1: kappa .676, standard error .088."""

FLEISS_1971 = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006
10050 11040 03300 10050 02031 00501 30012 51000 02040 10203
00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
"""Psychol. Bull. 76:378, table 1: 30 patients, 6 psychiatrists, 5 diagnoses."""


def bounds(found: Kappa) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def half(found: Kappa) -> float:
    low, high = bounds(found)
    return (high - low) / 2


def raters_of(table: list[list[int]]) -> tuple[Ints, Ints]:
    """Two raters whose joint counts are ``table``."""
    cells = [(i, j, k) for i, row in enumerate(table) for j, k in enumerate(row)]
    a, b = np.array([(i, j) for i, j, k in cells for _ in range(k)]).T
    return a, b


def subjects_of(counts: list[list[int]]) -> Ints:
    """[raters, n] of counts of categories by subject; who says what does not matter to Fleiss."""
    return np.array([[c for c, k in enumerate(row) for _ in range(k)] for row in counts]).T


def test_cohen_1960() -> None:
    found = cohen(*raters_of(COHEN_1960))
    assert (found.n, found.raters, found.interval) == (200, 2, "asymptotic")
    assert found.observed == pytest.approx(0.70)
    assert found.chance == pytest.approx(0.41)
    assert found.value == pytest.approx(0.29 / 0.59)


def test_fleiss_1981_with_its_standard_error() -> None:
    found = cohen(*raters_of(FLEISS_1981))
    assert found.value == pytest.approx(0.676, abs=5e-4)
    assert half(found) / 1.959964 == pytest.approx(0.088, abs=1e-3)


def test_fleiss_1971() -> None:
    table = [[int(digit) for digit in row] for row in FLEISS_1971.split()]
    assert np.sum(table, axis=0).tolist() == [26, 26, 30, 55, 43]
    found = fleiss(subjects_of(table))
    assert (found.n, found.raters) == (30, 6)
    assert found.observed == pytest.approx(0.5556, abs=5e-5)
    assert found.chance == pytest.approx(0.2199, abs=5e-5)
    assert found.value == pytest.approx(0.430, abs=5e-4)


def test_a_small_table_by_hand() -> None:
    """Pairs that agree: 1/3, 3/3, 0/3 of three; categories 0, 1, 2 have 6, 2, 1 of 9 votes."""
    found = fleiss(np.array([[0, 0, 0], [0, 0, 1], [1, 0, 2]]))
    assert found.observed == pytest.approx(4 / 9)
    assert found.chance == pytest.approx(41 / 81)
    assert found.value == pytest.approx(-5 / 40)


def jackknife_half(kappa_of: Any, n: int) -> float:
    """Half a 95 % interval by leaving out each sample once: asks nothing of any formula."""
    left_out = np.array([kappa_of(np.arange(n) != i) for i in range(n)])
    return float(1.959964 * np.sqrt((n - 1) * left_out.var()))


@pytest.mark.parametrize("classes", [2, 7])
def test_intervals_are_the_jackknifes(classes: int) -> None:
    """Uneven classes and biased raters.

    Else chance agreement hardly varies from sample to sample, and no error in its part of the
    variance would show.
    """
    random = np.random.default_rng(4)

    def uneven(share: float) -> Ints:
        return np.minimum(random.geometric(share, 400) - 1, classes - 1)

    truth = uneven(0.85)
    noise = [(random.random(400) < p, uneven(q)) for p, q in ((0.3, 0.9), (0.4, 0.4), (0.5, 0.7))]
    raters = np.stack([np.where(replaced, other, truth) for replaced, other in noise])
    two, three = cohen(raters[0], raters[1]), fleiss(raters)
    half_two = jackknife_half(lambda keep: cohen(raters[0][keep], raters[1][keep]).value, 400)
    half_three = jackknife_half(lambda keep: fleiss(raters[:, keep]).value, 400)
    assert half(two) == pytest.approx(half_two, rel=0.01)
    assert half(three) == pytest.approx(half_three, rel=0.01)


@pytest.mark.parametrize("n", [60, 400])
@pytest.mark.parametrize("noise", [0.002, 0.02, 0.3])
@pytest.mark.parametrize("raters", [2, 4])
def test_the_interval_covers_what_it_promises(raters: int, noise: float, n: int) -> None:
    """95 % promised, and 0.92 is nearly three standard errors of 400 seeded studies below that.

    The exact kind is conservative, so there is no bound above.
    """
    random, classes, studies = np.random.default_rng([7, raters, n]), 5, 400
    # Raters keep the truth with p, else draw any class: they agree with p² + (1 - p²) / classes.
    true = (1 - noise) ** 2
    inside = 0
    for _ in range(studies):
        truth = random.integers(0, classes, n)
        seen = np.stack([_noisy(random, truth, classes, noise) for _ in range(raters)])
        found = cohen(seen[0], seen[1]) if raters == 2 else fleiss(seen)
        low, high = bounds(found)
        inside += low <= true <= high
    assert inside / studies >= 0.92


def _noisy(random: np.random.Generator, truth: Ints, classes: int, share: float) -> Ints:
    replaced = random.random(len(truth)) < share
    return np.where(replaced, random.integers(0, classes, len(truth)), truth)


DECISIONS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(NO_DECISION, 4), min_size=n, max_size=n)] * 3)
)


@given(DECISIONS, st.randoms(use_true_random=False))
def test_order_and_names_do_not_matter(three: tuple[list[int], ...], random: Any) -> None:
    raters = np.array(three)
    order = random.sample(range(raters.shape[1]), raters.shape[1])
    renamed = np.where(raters == NO_DECISION, NO_DECISION, 9_999 - 3 * raters)
    for changed in (raters[:, order], raters[::-1], renamed):
        assert _close(fleiss(changed), fleiss(raters))
        assert _close(cohen(changed[0], changed[2]), cohen(raters[0], raters[2]))


@given(DECISIONS)
def test_bounds_hold_the_estimate_and_agreement_is_counted(three: tuple[list[int], ...]) -> None:
    a, b, c = map(np.array, three)
    two, all_three = cohen(a, b), fleiss(np.stack([a, b, c]))
    assert two.observed == pytest.approx(np.mean((a == b) & (a != NO_DECISION)))
    pairs = [np.mean((x == y) & (x != NO_DECISION)) for x, y in ((a, b), (a, c), (b, c))]
    assert all_three.observed == pytest.approx(np.mean(pairs))
    for found in (two, all_three):
        if found.value is None:
            assert (found.low, found.high) == (None, None)
            continue
        low, high = bounds(found)
        assert -1 <= low <= high <= 1
        assert low - 1e-9 <= found.value <= high + 1e-9


def _close(a: Kappa, b: Kappa) -> bool:
    parts = [[k.value, k.low, k.high, k.observed, k.chance] for k in (a, b)]
    one, other = np.array(parts, dtype=float)
    return np.allclose(one, other, equal_nan=True)


def test_constant_decisions_leave_kappa_undefined() -> None:
    always = np.full(50, 3)
    for found in (cohen(always, always), fleiss(np.stack([always] * 4))):
        assert found.value is None
        assert (found.observed, found.chance) == (1.0, 1.0)
        assert (found.low, found.high) == (None, None)


def test_one_sample() -> None:
    assert cohen(np.array([1]), np.array([1])).value is None
    assert cohen(np.array([1]), np.array([2])).value == 0.0


def test_perfect_agreement_is_no_more_certain_than_its_samples() -> None:
    same = np.arange(100) % 10
    found = cohen(same, same)
    assert (found.value, found.high, found.interval) == (1.0, 1.0, "exact")
    upper = clopper_pearson(0, 100)[1]
    assert found.low == pytest.approx((1 - upper - 0.1) / 0.9)


def test_no_decision_agrees_with_nothing() -> None:
    """Two broken devices must not look consistent."""
    none = np.full(20, NO_DECISION)
    assert cohen(none, none).observed == 0.0
    assert cohen(none, none).value == 0.0
    half = np.concatenate([np.arange(10) % 2, none[:10]])
    assert cohen(half, half).observed == 0.5
    assert fleiss(np.stack([half, half, half])).observed == pytest.approx(0.5)
    with_none = fleiss(np.array([[0, 1, 0, NO_DECISION], [0, 1, 1, 0]]))
    assert with_none.observed == 0.5
    assert with_none.chance == pytest.approx((4 / 8) ** 2 + (3 / 8) ** 2)


def test_ten_thousand_classes() -> None:
    random = np.random.default_rng(1)
    truth = random.permutation(10_000).repeat(2)
    other = np.where(np.arange(len(truth)) % 100 == 0, (truth + 1) % 10_000, truth)
    found = fleiss(np.stack([truth, other, truth]))
    assert found.observed == pytest.approx(1 - 0.01 * 2 / 3)
    assert found.value == pytest.approx(found.observed, abs=1e-4)
    assert cohen(truth, other).value == pytest.approx(0.99, abs=1e-4)


@pytest.mark.parametrize("shape", [(0,), (1, 5), (2, 0)])
def test_what_is_no_study_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="decisions"):
        fleiss(np.zeros(shape, dtype=np.int64))
    with pytest.raises(ValueError, match="decisions"):
        cohen(np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64))
