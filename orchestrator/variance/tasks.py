"""What a model's output decides, when that is right, and when two decisions disagree.

A sample whose deciding values hold NaN or an infinity decides nothing: it is never correct and
disagrees with everything, a copy of itself included. Two broken devices must not look consistent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.variance.lattice import Array, Output, codes, real
from orchestrator.variance.top_margin import largest, lead

NO_DECISION = -1
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Classification:
    """Decision: index of the largest value of output ``output``, the first one on ties."""

    output: int = 0


@dataclass(frozen=True)
class Regression:
    """Regression: the decision is the values themselves.

    Right, or in agreement, when every value of the sample is within ``tolerance`` (absolute, in the
    output's real units, inclusive).
    """

    tolerance: float
    output: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < np.inf:
            raise ValueError("tolerance must be a finite number >= 0")


@dataclass(frozen=True)
class Anomaly:
    """Decision: 1 when the score exceeds ``threshold``, else 0.

    Score: "output" the single value of the sample; "max_output" the largest one; "mse_to_input"
    the mean squared difference to the input, both flattened in the same element order.
    """

    threshold: float
    score: Literal["output", "mse_to_input", "max_output"] = "output"
    output: int = 0

    def __post_init__(self) -> None:
        if not np.isfinite(self.threshold):
            raise ValueError("threshold must be finite")


Task = Classification | Regression | Anomaly


class TaskError(InputError):
    """Outputs, labels or inputs do not have the form that the task needs."""

    def __init__(self, what: str) -> None:
        super().__init__("E-TASK-MISMATCH", what, fix="check the model's task and its labels")

    def __reduce__(self) -> tuple[type[TaskError], tuple[str]]:
        return TaskError, (self.what,)


def tensor(task: Task, outputs: Sequence[Output]) -> Output:
    """The deciding output tensor."""
    if not 0 <= task.output < len(outputs):
        raise TaskError(f"the task reads output {task.output}, the model has {len(outputs)}")
    return outputs[task.output]


def decisions(task: Task, outputs: Sequence[Output], inputs: Array | None = None) -> Array:
    """Decisions of all samples.

    Regression: float64 [n, elements]; otherwise int64 [n] with NO_DECISION where a value is not
    finite. ``inputs`` [n, ...] (real values) serves "mse_to_input" only. Raises TaskError.
    """
    output = tensor(task, outputs)
    match task:
        case Regression():
            return real(output)
        case Classification():
            return _largest(output)
        case Anomaly():
            score = _scores(task, real(output), inputs)
            return np.where(np.isfinite(score), score > task.threshold, NO_DECISION).astype(
                np.int64
            )
        case _:
            assert_never(task)


def _largest(output: Output) -> Array:
    ordered = output.scale is None or output.scale > 0  # then codes have the order of real values
    values = output.values.reshape(len(output.values), -1) if ordered else real(output)
    if values.shape[1] < 2:
        raise TaskError("the largest of fewer than two values decides nothing")
    if values.dtype.kind in "iu":
        return largest(values)
    found: Array = np.argmax(values, axis=1).astype(np.int64)
    return np.where(np.isfinite(values).all(axis=1), found, NO_DECISION)


def check_labels(task: Task, labels: Array, outputs: Sequence[Output]) -> None:
    """Raises TaskError unless the labels can be compared with these outputs."""
    values = tensor(task, outputs).values
    n, elements = len(values), int(np.prod(values.shape[1:], dtype=np.int64))
    if len(labels) != n:
        raise TaskError(f"{len(labels)} labels for {n} samples")
    if isinstance(task, Regression):
        if labels.size != n * elements:
            raise TaskError(f"labels have shape {labels.shape}, outputs {values.shape}")
        if not np.isfinite(labels).all():
            raise TaskError("labels hold NaN or infinity")
        return
    classes = elements if isinstance(task, Classification) else 2
    if labels.size != n or not _among(labels, classes):
        raise TaskError(f"labels must be one integer of 0..{classes - 1} for each sample")


def _among(labels: Array, classes: int) -> bool:
    if labels.dtype.kind in "iu":
        return bool(labels.min() >= 0 and labels.max() < classes)
    return bool(np.isin(labels, np.arange(classes)).all())


def correct(task: Task, decided: Array, labels: Array) -> Mask:
    """Which samples are right, bool [n]. Labels as check_labels accepts them."""
    if isinstance(task, Regression):
        return _within(decided, labels.reshape(decided.shape).astype(np.float64), task.tolerance)
    right: Mask = (decided == labels.reshape(decided.shape)) & (decided != NO_DECISION)
    return right


def disagree(task: Task, a: Array, b: Array) -> Mask:
    """Which samples are decided differently, bool [n]. Symmetric. Raises TaskError."""
    if a.shape != b.shape:
        raise TaskError(f"decisions of shapes {a.shape} and {b.shape} cannot be compared")
    if isinstance(task, Regression):
        return np.logical_not(_within(a, b, task.tolerance))
    differs: Mask = (a != b) | (a == NO_DECISION)
    return differs


def margins(task: Task, outputs: Sequence[Output]) -> NDArray[np.float64] | None:
    """Distance of each sample from the nearest other decision in steps (LSB) of the output, [n].

    Classification: largest code minus the second largest (0 on ties). Anomaly on an output value:
    distance of the score from the threshold. None where the output lies on no lattice, or where
    the decision is not one step of an output away from another (regression, reconstruction error).
    """
    output = tensor(task, outputs)
    if isinstance(task, Classification) and output.values.dtype.kind in "iu":
        return lead(output.values.reshape(len(output.values), -1))
    q = codes(output)
    if q is None or isinstance(task, Regression):
        return None
    if isinstance(task, Classification):
        return lead(q)
    if task.score == "mse_to_input":
        return None
    step = float(np.float32(output.scale)) if output.scale is not None else 1.0
    return np.abs(_scores(task, real(output), None) - task.threshold) / step


def _scores(task: Anomaly, values: NDArray[np.float64], inputs: Array | None) -> Array:
    finite = np.isfinite(values).all(axis=1)
    match task.score:
        case "output":
            if values.shape[1] != 1:
                raise TaskError(f"score 'output' needs one value a sample, not {values.shape[1]}")
            score = values[:, 0]
        case "max_output":
            if values.shape[1] == 0:
                raise TaskError("the output is empty")
            score = values.max(axis=1)
        case "mse_to_input":
            if inputs is None or inputs.size != values.size or len(inputs) != len(values):
                shape = None if inputs is None else inputs.shape
                raise TaskError(f"output {values.shape} cannot be compared with input {shape}")
            with np.errstate(over="ignore", invalid="ignore"):
                score = np.square(values - inputs.reshape(values.shape).astype(np.float64)).mean(
                    axis=1
                )
        case _:
            assert_never(task.score)
    return np.where(finite, score, np.nan)


def _within(a: Array, b: Array, tolerance: float) -> Mask:
    with np.errstate(invalid="ignore", over="ignore"):
        near: Mask = (np.abs(a - b) <= tolerance).all(axis=1)  # False for NaN
    return near


def task_of(named: dict[str, Any]) -> Task:
    """From a matrix's task as plain data."""
    kinds = {
        "classification": Classification,
        "regression": Regression,
        "anomaly": Anomaly,
    }
    kind = kinds[named.pop("type")]
    named.pop("labels", None)
    made: Task = kind(**named)
    return made
