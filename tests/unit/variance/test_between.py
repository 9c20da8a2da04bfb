"""Pairs beyond their codes, votes, slices: by hand, by a naive second count, and laws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats

from orchestrator.variance import fleet, slices
from orchestrator.variance.answers import Answers
from orchestrator.variance.intervals import Estimate, mean
from orchestrator.variance.kappa import cohen
from orchestrator.variance.pair_stats import Between, between, kolmogorov_smirnov
from orchestrator.variance.softmax import head
from orchestrator.variance.tasks import Regression, TaskError
from tests.unit.variance.arrays import f32, i8
from tests.unit.variance.test_confidence import answers

DECISIONS = hnp.arrays(np.int64, 30, elements=st.integers(0, 3))
VALUES = hnp.arrays(np.float64, st.integers(5, 20), elements=st.integers(0, 9).map(float))
LOGITS = hnp.arrays(np.int8, (8, 4))
LATTICE: dict[str, Any] = {"scale": 0.25, "zero_point": 3}


def compared(a: Answers, b: Answers) -> Between:
    return between(a, b, (head(a), head(b)), seed=0)


def spread_over(table: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    cells = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return np.array([i for i, _ in cells]), np.array([j for _, j in cells])


def test_kappa_of_a_worked_table() -> None:
    # po 0.7, pe 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    found = cohen(*spread_over([[20, 5], [10, 15]]))
    assert found.value == pytest.approx(0.4)
    # Fleiss, Cohen & Everitt's terms, cell by cell.
    p, pe = np.array([[0.4, 0.1], [0.2, 0.3]]), 0.5
    rows, columns = p.sum(1), p.sum(0)
    inside = sum(p[i, i] * ((1 - pe) - (columns[i] + rows[i]) * 0.3) ** 2 for i in range(2))
    outside = 0.3**2 * sum(
        p[i, j] * (columns[i] + rows[j]) ** 2 for i in range(2) for j in range(2) if i != j
    )
    variance = (inside + outside - (0.7 * pe - 2 * pe + 0.7) ** 2) / (50 * (1 - pe) ** 4)
    half = 1.959964 * math.sqrt(variance)
    assert found.low == pytest.approx(0.4 - half)
    assert found.high == pytest.approx(0.4 + half)


@given(DECISIONS, DECISIONS, st.randoms())
def test_kappa_is_symmetric_and_ignores_order(a: Any, b: Any, random: Any) -> None:
    order = list(range(30))
    random.shuffle(order)
    forth, back, shuffled = cohen(a, b), cohen(b, a), cohen(a[order], b[order])
    for other in (back, shuffled):
        assert other.value == pytest.approx(forth.value, abs=1e-12)
        assert other.low == pytest.approx(forth.low, abs=1e-9)
    same = cohen(a, a)
    assert same.value == (1.0 if len(set(a)) > 1 else None)


def test_missing_decisions_agree_with_nothing() -> None:
    found = cohen(np.array([0, 1, -1, -1]), np.array([0, 1, -1, -1]))
    assert found.value is not None
    assert found.value < 0.5


@settings(max_examples=8)
@given(LOGITS)
def test_a_row_against_itself(q: Any) -> None:
    labels = np.arange(8) % 4
    found = compared(answers(q, labels, **LATTICE), answers(q.copy(), labels, **LATTICE))
    assert found.accuracy is not None
    assert (found.accuracy.gained, found.accuracy.lost, found.mcnemar_p) == (0, 0, 1.0)
    assert found.real is not None
    assert (found.real.max_abs, found.real.mean_signed, found.real.rmse) == (0, 0, 0)
    assert found.lattices == {}
    if found.confidences is not None:
        c = found.confidences
        assert (c.jsd.value, c.w1.value, c.ks.value, c.psi.value) == (0, 0, 0, 0)
        assert (c.w1.low, c.w1.high, c.ks.high, c.psi.high) == (0, 0, 0, 0)


@settings(max_examples=8)
@given(LOGITS, LOGITS)
def test_pairs_are_symmetric_but_for_the_sign(x: Any, y: Any) -> None:
    labels = np.arange(8) % 4
    a, b = answers(x, labels, **LATTICE), answers(y, labels, **LATTICE)
    forth, back = compared(a, b), compared(b, a)
    assert forth.mcnemar_p == back.mcnemar_p
    assert forth.real is not None
    assert back.real is not None
    assert forth.real.max_abs == back.real.max_abs
    assert forth.real.rmse == back.real.rmse
    assert forth.real.mean_signed == -(back.real.mean_signed or 0.0)
    if forth.confidences and back.confidences:
        assert forth.confidences.w1.value == pytest.approx(back.confidences.w1.value, abs=1e-12)
        assert forth.confidences.ks.value == back.confidences.ks.value
    naive = (x.astype(float) - y.astype(float)) * 0.25
    assert forth.real.max_abs == np.abs(naive).max()
    assert forth.real.mean_signed == pytest.approx(naive.mean(), abs=1e-12)


def test_other_lattices_are_compared_in_real_units_and_said() -> None:
    a, b = (
        answers(i8([[10, 20]]), scale=0.5, zero_point=0),
        answers(i8([[20, 41]]), scale=0.25, zero_point=0),
    )
    found = compared(a, b)
    assert found.lattices == {"y": ("0.5/0", "0.25/0")}
    assert found.real is not None
    assert (found.real.max_abs, found.real.mean_signed) == (0.25, -0.125)
    floats = compared(a, answers(f32([[5.0, np.nan]])))
    assert floats.lattices == {"y": ("0.5/0", "none")}
    assert floats.real is not None
    assert (floats.real.n, floats.real.max_abs) == (1, 0)
    assert compared(a, answers(i8([[20, 41]]))).real is None  # no scale: no units


def test_what_cannot_be_compared_is_refused_or_left_out() -> None:
    with pytest.raises(TaskError, match="cannot be compared"):
        compared(answers(i8([[1, 2]])), answers(i8([[1, 2, 3]])))
    values = f32([[1.0], [2.0]])
    found = compared(answers(values, task=Regression(0.5)), answers(values, task=Regression(0.5)))
    assert (found.kappa, found.accuracy, found.mcnemar_p, found.confidences) == (None,) * 4


@given(VALUES, VALUES)
def test_the_largest_distance_of_distributions_is_scipys(x: Any, y: Any) -> None:
    expected = stats.ks_2samp(x, y, method="asymp").statistic
    assert kolmogorov_smirnov(x, y) == pytest.approx(expected, abs=1e-12)


def test_the_mean_distance_in_codes_has_an_interval_over_samples() -> None:
    base = np.arange(40, dtype=np.int8).reshape(10, 4)
    shifted = base + np.arange(10, dtype=np.int8).reshape(10, 1)
    found = compared(answers(shifted, **LATTICE), answers(base, **LATTICE)).mean_lsb
    assert found == mean(np.arange(10.0))
    assert compared(answers(f32([[0.3, 0.1]])), answers(f32([[0.3, 0.1]]))).mean_lsb is None
    wide = np.array([[2**62, 2**62, 2**62]])
    assert compared(answers(wide), answers(wide)).mean_lsb == Estimate(0.0, 1, None, None)


def test_votes_by_hand() -> None:
    rows = [answers(f32(v)) for v in ([[1, 0], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [np.nan, 1]])]
    found = fleet.vote_entropy(rows)
    assert found is not None
    assert found.tolist() == pytest.approx([0.0, math.log(3)])
    two = fleet.vote_entropy(rows[:2] + rows[:1])
    assert two is not None
    naive = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert two.tolist() == pytest.approx([0.0, naive])
    assert fleet.vote_entropy([answers(f32([[1.0]]), task=Regression(0.5))]) is None
    one = fleet.vote_entropy(rows[:1])
    assert one is not None
    assert one.tolist() == [0, 0]
    with pytest.raises(TaskError):
        fleet.vote_entropy([rows[0], answers(f32([[1, 0]]))])


def lossy(n: int = 400) -> tuple[Answers, Answers, NDArray[Any], NDArray[Any]]:
    """FP32 right throughout; INT8 wrong on every other sample of group "b" only."""
    labels, group = np.zeros(n, int), np.where(np.arange(n) % 4 == 0, "b", "a")
    x = np.tile(f32([4, 0]), (n, 1))
    y = x.copy()
    y[np.arange(n) % 8 == 0] = f32([0, 4])
    return answers(y, labels), answers(x, labels), labels, group


def test_a_loss_in_one_slice_is_found_there() -> None:
    own, fp32, labels, group = lossy()
    found = slices.slices(own, fp32, head(own), {"group": group, "label": labels}, seed=0)
    assert [(s.column, s.value, s.n) for s in found] == [
        ("group", "a", 300),
        ("group", "b", 100),
        ("label", "0", 400),
    ]
    a, b, whole = found
    for s, lost in ((a, 0), (b, 50), (whole, 50)):
        assert s.change is not None
        assert s.fp32 is not None
        assert s.accuracy is not None
        assert (s.change.lost, s.change.gained, s.fp32.k - s.accuracy.k) == (lost, 0, lost)
        assert s.disagreement is not None
        assert s.disagreement.k == lost
        assert s.ece is not None
    assert b.change is not None
    assert b.change.high < -0.35
    assert a.change is not None
    assert a.change.low > -0.02
    worst = slices.worst(found)
    assert worst is not None
    assert worst[0] is b
    gap = worst[1]
    assert gap.n == 400
    assert gap.value == pytest.approx(-0.5 + 50 / 400)
    assert gap.low is not None
    assert gap.high is not None
    assert -0.5 < gap.low < -0.375 < gap.high < -0.25
    assert slices.losing(found) == [False, True, True]
    assert b.p_loss == pytest.approx(0.5**50)
    # The other two are the same claim: twice as likely among two at first, then no more likely.
    assert slices.adjusted(found) == pytest.approx([1.0, 3 * 0.5**50, 3 * 0.5**50])


def test_a_slice_that_is_its_whole_column_has_no_gap() -> None:
    own, fp32, labels, _ = lossy(80)
    found = slices.slices(own, fp32, head(own), {"label": labels}, seed=0)
    assert slices.worst(found) == (found[0], Estimate(0.0, 80, 0.0, 0.0))


def test_confidence_of_a_slice_is_that_of_its_samples_alone() -> None:
    """Group "b" wavers between two of three classes; the others are sure."""
    group = np.where(np.arange(40) % 4 == 0, "b", "a")
    x = np.where((group == "b")[:, None], f32([2, 2, 2]), f32([9, 0, 0])).astype(np.float32)
    bare = answers(x)
    a, b = slices.slices(bare, None, head(bare), {"g": group}, seed=0)
    assert a.confidence is not None
    assert b.confidence is not None
    assert (a.confidence.n, a.confidence.low.k) == (30, 0)
    assert (b.confidence.n, b.confidence.low.k) == (10, 10)
    assert [p.value for p in b.confidence.p1_percentiles] == pytest.approx([1 / 3] * 3)
    assert all(p.value is not None and p.value > 0.99 for p in a.confidence.p1_percentiles)


def test_many_small_losses_are_no_claim() -> None:
    """Five of five lost is p = 1/32: alone a claim at 5 %, not among forty slices."""
    labels, column = np.zeros(200, int), np.arange(200) // 5
    x = np.tile(f32([4, 0]), (200, 1))
    y = x.copy()
    y[:5] = f32([0, 4])
    own, fp32 = answers(y, labels), answers(x, labels)
    found = slices.slices(own, fp32, head(own), {"part": column}, seed=0)
    assert found[0].p_loss == 1 / 32
    assert slices.losing(found[:1]) == [True]
    assert slices.losing(found) == [False] * 40


def test_an_input_that_stands_there_often_is_one_piece_of_evidence() -> None:
    labels = np.zeros(60, int)
    inputs = np.arange(60, dtype=np.float32).reshape(60, 1)
    inputs[:30] = 7  # sample 0 thirty times over, and sample 7 is it as well
    x = np.tile(f32([4, 0]), (60, 1))
    y = x.copy()
    y[:30] = f32([0, 4])
    own, fp32 = answers(y, labels), answers(x, labels)
    same = slices.same_inputs(inputs)
    assert same.tolist() == [0] * 30 + list(range(30, 60))
    columns = {"all": labels, "half": np.arange(60) % 2}
    often = slices.slices(own, fp32, head(own), columns, seed=0)
    once = slices.slices(own, fp32, head(own), columns, seed=0, same=same)
    assert slices.losing(often) == [True] * 3
    assert slices.losing(once) == [False] * 3
    assert [(s.n, s.distinct, s.p_loss) for s in once] == [(60, 31, 0.5), *[(30, 16, 0.5)] * 2]
    assert [s.change for s in once] == [s.change for s in often]


def test_slices_without_labels_or_parent() -> None:
    own, fp32, _, group = lossy(8)
    bare = answers(own.outputs[0].values)
    for s in slices.slices(bare, fp32, head(bare), {"g": group}, seed=0):
        assert (s.accuracy, s.change, s.ece, s.p_loss) == (None,) * 4
        assert s.disagreement is not None
    for s in slices.slices(own, None, head(own), {"g": group}, seed=0):
        assert (s.fp32, s.change, s.disagreement, s.p_loss) == (None,) * 4
        assert s.accuracy is not None
    found = slices.slices(bare, fp32, head(bare), {"g": group}, seed=0)
    assert slices.worst(found) is None
    assert slices.losing(found) == [False, False]


def test_a_column_that_groups_nothing_is_refused() -> None:
    own, fp32, _, _ = lossy(200)
    with pytest.raises(TaskError, match="200 values"):
        slices.slices(own, fp32, head(own), {"weight": np.linspace(0, 1, 200)}, seed=0)
    with pytest.raises(TaskError, match="shape"):
        slices.slices(own, fp32, head(own), {"short": np.zeros(3)}, seed=0)
