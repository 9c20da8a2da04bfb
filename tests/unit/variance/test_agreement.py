"""Which raters are compared, over which samples, and what the counts are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.variance.agreement import against, against_truth, between, distinct, within
from orchestrator.variance.tasks import NO_DECISION, Classification, Regression
from tests.unit.variance.raters import rater

TASK = Classification()


def test_one_attempt_has_nobody_to_agree_with() -> None:
    alone = [rater("a", [1, 2, 3])]
    assert within(TASK, alone) == []
    assert between(TASK, alone) == []
    assert against(TASK, alone, alone[0]) == []


def test_within_counts_samples_on_which_all_trials_agree() -> None:
    trials = [rater("a", [0, 1, 2, 3]), rater("b", [0, 1, 2, 0]), rater("c", [0, 1, 1, 3])]
    (found,) = within(TASK, [*trials, rater("d", [9, 9, 9, 9], threads=2)])
    assert (found.level, found.attempts) == ("within", ("a", "b", "c"))
    assert (found.alike.k, found.alike.n) == (2, 4)
    assert found.kappa is not None
    assert found.kappa.observed == pytest.approx((1 + 1 + 1 / 3 + 1 / 3) / 4)


def test_a_shorter_trial_is_compared_over_the_samples_that_all_have() -> None:
    trials = [rater("a", [0, 1, 2]), rater("b", [0, 1, 0]), rater("short", [0])]
    long, all_three = within(TASK, trials)
    assert (long.attempts, long.n, long.alike.k) == (("a", "b"), 3, 2)
    assert (all_three.attempts, all_three.n, all_three.alike.k) == (("a", "b", "short"), 1, 1)
    assert all_three.kappa is not None
    assert all_three.kappa.value is None, "one sample, one decision: chance alone agrees"


def test_levels_hold_all_else_equal() -> None:
    raters = [
        rater("one", [0, 1], unit="box-1"),
        rater("two", [0, 0], unit="box-2"),
        rater("pi", [1, 1], unit="pi-1", device_class="pi", core="aarch64"),
        rater("old", [0, 1], unit="box-1", version="2.1.0"),
        rater("tfl", [0, 0], unit="box-1", runtime="tflite-runtime", version="2.14.0"),
        rater("t2", [1, 0], unit="box-1", threads=2),
    ]
    found = {a.level: a for a in between(TASK, raters)}
    assert {level: a.attempts for level, a in found.items()} == {
        "units": ("one", "two"),
        "classes": ("one", "pi"),
        "runtimes": ("one", "tfl"),
        "versions": ("old", "one"),
    }
    assert found["versions"].who == ("2.1.0", "2.3.0")
    assert dict(found["units"].fixed)["threads"] == "1"
    assert [found[k].alike.k for k in ("units", "classes", "runtimes", "versions")] == [1, 1, 1, 2]


def test_of_several_attempts_the_longest_then_the_newest_speaks() -> None:
    raters = [
        rater("old", [0, 1], time=1.0),
        rater("new", [0, 1], time=2.0),
        rater("newest-but-short", [0], time=3.0),
        rater("other", [0, 1], unit="box-2"),
    ]
    (units,) = between(TASK, raters)
    assert units.attempts == ("new", "other")


def test_an_unknown_version_is_not_taken_to_be_equal() -> None:
    raters = [rater("a", [0], version=None), rater("b", [0], unit="box-2", version=None)]
    assert between(TASK, raters) == []


def test_against_the_reference_and_the_truth() -> None:
    reference = rater("ref", [0, 1, 2, 3])
    other, again = rater("other", [0, 1, 2, 2], threads=2), rater("again", [0, 1, 2, 3], time=5.0)
    (found,) = against(TASK, [reference, other, again], reference)
    assert (found.attempt, found.agree.k, found.agree.n) == ("other", 3, 4)
    truth = against_truth(TASK, [reference, other, again], np.array([[0], [1], [3], [3]]))
    assert [(a.attempt, a.agree.k) for a in truth] == [("ref", 3), ("other", 2)]


def test_a_unit_that_does_not_repeat_itself_is_measured_against_itself() -> None:
    reference = rater("ref", [0, 1, 2, 3])
    (found,) = against(TASK, [reference, rater("unsteady", [0, 1, 2, 0], time=1.0)], reference)
    assert (found.attempt, found.agree.k) == ("unsteady", 3)


def test_no_decision_agrees_with_nothing() -> None:
    broken = [rater("a", [NO_DECISION] * 3), rater("b", [NO_DECISION] * 3, unit="box-2")]
    (units,) = between(TASK, broken)
    assert (units.alike.k, units.identical.k) == (0, 3)


def test_regression_has_agreement_and_no_kappa() -> None:
    task = Regression(tolerance=0.5)
    raters = [rater("a", [[0.0], [1.0]]), rater("b", [[0.4], [2.0]], unit="box-2"),
              rater("c", [[-0.4], [1.0]], unit="box-3")]  # fmt: skip
    (units,) = between(task, raters)
    assert units.alike.k == 0, "0.4 and -0.4 are too far apart, though both are near 0"
    assert units.kappa is None
    (truth, *_) = against_truth(task, raters, np.array([0.1, 5.0]))
    assert (truth.agree.k, truth.kappa) == (1, None)


def test_an_answer_that_begins_another_is_not_distinct() -> None:
    raters = [rater("short", [0, 1]), rater("long", [0, 1, 2]), rater("unlike", [1, 1], time=2.0)]
    (same,) = distinct(raters).values()
    assert [r.attempt for r in same] == ["long", "unlike"]


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(st.integers(-1, 2), min_size=n, max_size=n), min_size=2)
    )
)
def test_order_of_raters_does_not_matter_and_identity_is_exact(rows: list[list[int]]) -> None:
    raters = [rater(str(i), row, unit=f"box-{i}") for i, row in enumerate(rows)]
    (forward,), (backward,) = between(TASK, raters), between(TASK, raters[::-1])
    assert (forward.alike, forward.identical) == (backward.alike, backward.identical)
    same = [rater(str(i), rows[0], unit=f"box-{i}") for i in range(3)]
    (found,) = between(TASK, same)
    assert found.identical.k == len(rows[0])
    assert found.alike.k == sum(x != NO_DECISION for x in rows[0])
