"""Class probabilities out of a classifier's output, where it is certain that it holds any.

Every classifier ends in numbers whose largest decides; only some of them are probabilities. What
an output is taken for is decided by its values alone, said with the reason, and never assumed:
an output that fits neither rule has no confidence, no calibration and no divergence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from orchestrator.variance import tasks
from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import real

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Kind = Literal["probabilities", "logits", "unclear"]

SUM_TOLERANCE = 1e-3
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Head:
    """``p`` float64 [n, classes], each row summing to 1, NaN for a sample that is not finite; None

    where ``kind`` is "unclear". ``why``: what the kind was decided by. ``floor``: a probability
    below it is not told from 0 (half a step of the output's lattice), so logarithms stop there.
    """

    kind: Kind
    why: str
    p: Floats | None = None
    floor: float = SMALLEST

    @property
    def p1(self) -> Floats | None:
        """Confidence: the largest probability of each sample [n]."""
        return None if self.p is None else self.p.max(axis=1)


def head(answers: Answers) -> Head:
    """ "probabilities": in every finite sample all values lie in [0, 1] and sum to 1, give or take

    rounding (1e-3 and half a step for each class); they are divided by their sum. "logits": some
    value lies below 0 or above 1; they go through a softmax. Else "unclear": values of [0, 1] that
    do not sum to 1 may be scores of independent classes.
    """
    if not isinstance(answers.task, tasks.Classification):
        return Head("unclear", "only a classifier's output can be class probabilities")
    output = tasks.tensor(answers.task, answers.outputs)
    if output.values.dtype.kind in "iu" and not output.scale:
        return Head("unclear", "integer codes without a scale have no real values")
    on_lattice = answers.narrow[answers.task.output] is not None and output.scale is not None
    step = float(np.float32(output.scale or 0)) if on_lattice else 0.0
    values = real(output)
    finite: Mask = np.asarray(np.isfinite(values).all(axis=1))
    known = values if finite.all() else values[finite]
    if not len(known):
        return Head("unclear", "no sample is finite")
    low, high, sums = float(known.min()), float(known.max()), known.sum(axis=1)
    slack = SUM_TOLERANCE + step / 2
    near = SUM_TOLERANCE + step / 2 * known.shape[1]
    span = f"values from {low:.4g} to {high:.4g}"
    if low < -slack or high > 1 + slack:
        return Head("logits", f"{span}: through a softmax", _spread(softmax(known, axis=1), finite))
    if not (np.abs(sums - 1) <= near).all():
        told = f"{span} that sum to {sums.min():.4g} to {sums.max():.4g}"
        return Head("unclear", f"{told}: not one distribution")
    told = f"{span} that sum to 1 within {near:.2g}"
    return Head("probabilities", told, _spread(_normal(known), finite), max(step / 2, SMALLEST))


def _normal(values: Floats) -> Floats:
    """Rows divided by their sums; all zeros (many classes, all below half a step) are uniform."""
    values = np.maximum(values, 0.0)
    sums = values.sum(axis=1, keepdims=True)
    uniform = 1 / values.shape[1]
    found: Floats = np.divide(values, sums, out=np.full_like(values, uniform), where=sums > 0)
    return found


def _spread(rows: Floats, finite: Mask) -> Floats:
    if finite.all():
        return rows
    found = np.full((len(finite), rows.shape[1]), np.nan)
    found[finite] = rows
    return found
