"""Decisions, correctness and disagreement of the three tasks; values that are not numbers."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from orchestrator.variance import tasks
from orchestrator.variance.lattice import Output
from orchestrator.variance.tasks import (
    NO_DECISION,
    Anomaly,
    Classification,
    Regression,
    Task,
    TaskError,
)
from tests.unit.variance.arrays import i8

NAN, INF = float("nan"), float("inf")
Int8 = NDArray[np.int8]


def out(values: Any, **lattice: Any) -> tuple[Output, ...]:
    return (Output("y", np.asarray(values), **lattice),)


def test_argmax_takes_the_first_of_equals() -> None:
    assert tasks.decisions(Classification(), out([[1, 3, 3], [2, 2, 1]])).tolist() == [1, 0]


@given(hnp.arrays(np.int8, (5, 4)), st.floats(1e-4, 10), st.integers(-128, 127))
def test_codes_and_their_real_values_decide_alike(q: Int8, scale: float, zp: int) -> None:
    on_codes = tasks.decisions(Classification(), out(q))
    on_real = tasks.decisions(Classification(), out(q, scale=scale, zero_point=zp))
    assert on_codes.tolist() == on_real.tolist()


def test_the_named_output_decides() -> None:
    two = (*out([[9, 0]]), *out([[0, 9]]))
    assert tasks.decisions(Classification(output=1), two).tolist() == [1]
    with pytest.raises(TaskError, match="output 2"):
        tasks.decisions(Classification(output=2), two)


def test_a_trailing_shape_of_ones_is_one_row_of_values() -> None:
    assert tasks.decisions(Classification(), out(np.array([[[[1.0, 5.0]]]]))).tolist() == [1]


def test_one_value_cannot_be_classified() -> None:
    with pytest.raises(TaskError, match="fewer than two"):
        tasks.decisions(Classification(), out([[3]]))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Classification(), np.array([1])),
        (Regression(tolerance=1e9), np.array([[0.0, 0.0]])),
        (Anomaly(0.0, score="max_output"), np.array([1])),
    ],
)
def test_a_value_that_is_no_number_is_never_right_and_never_agrees(
    task: Task, labels: NDArray[Any], bad: float
) -> None:
    decided = tasks.decisions(task, out([[0.0, bad]]))
    assert not tasks.correct(task, decided, labels).any()
    assert tasks.disagree(task, decided, decided).all()
    fine = tasks.decisions(task, out([[0.0, 1.0]]))
    assert tasks.disagree(task, decided, fine).all()
    assert tasks.disagree(task, fine, decided).all()


def test_two_nan_samples_of_one_array_spoil_only_themselves() -> None:
    decided = tasks.decisions(Classification(), out([[NAN, 1.0], [0.0, 1.0], [INF, INF]]))
    assert decided.tolist() == [NO_DECISION, 1, NO_DECISION]


def test_regression_tolerance_is_inclusive_and_wants_every_element() -> None:
    task = Regression(tolerance=0.5)
    decided = tasks.decisions(task, out([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]))
    labels = np.array([[1.5, 2.5], [1.0, 2.6], [1.0, 2.0]])
    assert tasks.correct(task, decided, labels).tolist() == [True, False, True]


def test_regression_reads_integers_in_real_units() -> None:
    decided = tasks.decisions(Regression(0.1), out(i8([[5]]), scale=0.25, zero_point=1))
    assert decided.tolist() == [[1.0]]


def test_anomaly_scores() -> None:
    values = [[0.5], [1.5]]
    assert tasks.decisions(Anomaly(1.0), out(values)).tolist() == [0, 1]
    wide = [[0.5, 0.9], [0.1, 1.5]]
    assert tasks.decisions(Anomaly(1.0, "max_output"), out(wide)).tolist() == [0, 1]
    inputs = np.array([[0.5, 0.9], [3.1, 1.5]])
    found = tasks.decisions(Anomaly(1.0, "mse_to_input"), out(wide), inputs)
    assert found.tolist() == [0, 1]  # mean((3.0, 0)^2) = 4.5


def test_a_score_on_the_threshold_is_normal() -> None:
    assert tasks.decisions(Anomaly(1.0), out([[1.0]])).tolist() == [0]


def test_a_reconstruction_error_too_large_for_float_decides_nothing() -> None:
    found = tasks.decisions(Anomaly(1.0, "mse_to_input"), out([[1e200]]), np.array([[-1e200]]))
    assert found.tolist() == [NO_DECISION]


@pytest.mark.parametrize("inputs", [None, np.zeros((1, 3)), np.zeros((2, 1))])
def test_reconstruction_error_needs_inputs_of_the_outputs_size(inputs: Any) -> None:
    with pytest.raises(TaskError, match="compared with input"):
        tasks.decisions(Anomaly(1.0, "mse_to_input"), out([[1.0, 2.0]]), inputs)


def test_score_output_needs_one_value() -> None:
    with pytest.raises(TaskError, match="one value"):
        tasks.decisions(Anomaly(1.0), out([[1.0, 2.0]]))


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Classification(), [0, 1]),
        (Classification(), [0, 1, 3]),
        (Classification(), [0, 1, -1]),
        (Classification(), [0, 1, 0.5]),
        (Anomaly(0.0, "max_output"), [0, 1, 2]),
        (Regression(1.0), [[0.0], [0.0], [0.0]]),
        (Regression(1.0), [[0.0] * 3, [0.0] * 3, [0.0, 0.0, NAN]]),
    ],
)
def test_labels_that_could_never_be_right_are_refused(task: Task, labels: list[Any]) -> None:
    with pytest.raises(TaskError) as caught:
        tasks.check_labels(task, np.array(labels), out(np.zeros((3, 3))))
    assert caught.value.id == "E-TASK-MISMATCH"


def test_fitting_labels_are_accepted() -> None:
    tasks.check_labels(Classification(), np.array([0, 1, 2]), out(np.zeros((3, 3))))
    tasks.check_labels(Regression(1.0), np.zeros((3, 3)), out(np.zeros((3, 3))))


def test_different_numbers_of_samples_cannot_be_compared() -> None:
    with pytest.raises(TaskError, match="shapes"):
        tasks.disagree(Classification(), np.array([1, 2]), np.array([1]))


@given(hnp.arrays(np.int8, (6, 3)), hnp.arrays(np.int8, (6, 3)))
def test_disagreement_is_symmetric_and_none_with_oneself(a: Int8, b: Int8) -> None:
    for task in (Classification(), Regression(3.0), Anomaly(1.0, "max_output")):
        x, y = (tasks.decisions(task, out(v)) for v in (a, b))
        forth, back = tasks.disagree(task, x, y), tasks.disagree(task, y, x)
        assert forth.tolist() == back.tolist()
        assert not tasks.disagree(task, x, x).any()


def test_margins_count_steps() -> None:
    q = i8([[5, 3, -9], [7, 7, 0]])
    found = tasks.margins(Classification(), out(q, scale=0.5, zero_point=0))
    assert found is not None
    assert found.tolist() == [2.0, 0.0]
    score = tasks.margins(Anomaly(1.0), out(i8([[3], [0]]), scale=0.5, zero_point=0))
    assert score is not None
    assert score.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("task", "values"),
    [
        (Classification(), [[0.1, 0.7]]),
        (Regression(1.0), i8([[1, 2]])),
        (Anomaly(1.0, "mse_to_input"), i8([[1, 2]])),
    ],
)
def test_margins_are_unknown_off_a_lattice_and_where_steps_do_not_decide(
    task: Task, values: Any
) -> None:
    assert tasks.margins(task, out(values)) is None


def test_senseless_tasks_are_refused() -> None:
    for bad in (-1.0, NAN, INF):
        with pytest.raises(ValueError, match="tolerance"):
            Regression(bad)
    with pytest.raises(ValueError, match="threshold"):
        Anomaly(NAN)


def test_the_error_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(TaskError("labels do not fit")))
    assert str(again) == str(TaskError("labels do not fit"))
