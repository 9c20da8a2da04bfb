"""Class probabilities out of a classifier's output, where it is certain that it holds any.

Every classifier ends in numbers whose largest decides; only some of them are probabilities. What
an output is taken for is decided by its values alone, said with the reason, and never assumed:
an output that fits neither rule has no confidence, no calibration and no divergence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from orchestrator.variance import tasks
from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import Output, real

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Kind = Literal["probabilities", "logits", "unclear"]

SMALLEST = float(np.finfo(np.float32).tiny)
HALF = 2.0**-11
"""Unit roundoff of float16."""
KERNEL_STEPS = 2
"""An integer kernel approximates exponentials: a row's sum may be so many steps off for that."""
KERNEL_BITS = 2.0**-19
"""What TFLite's integer softmax keeps of each exponential that it adds up."""


@dataclass(frozen=True, eq=False)
class Head:
    """Probabilities of each sample's classes, where the output allows any.

    ``p`` float64 [n, classes], each row summing to 1, NaN for a sample that is not finite; None
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
    """What a classifier's output holds, decided by its values alone.

    "probabilities": every finite sample may be one distribution as its type or lattice rounds it
    (`_rounding`); "logits": some value lies below 0 or above 1, and they go through a softmax; else
    "unclear": values of [0, 1] of which no distribution is made may be scores of independent
    classes.
    """
    if not isinstance(answers.task, tasks.Classification):
        return Head("unclear", "only a classifier's output can be class probabilities")
    output = tasks.tensor(answers.task, answers.outputs)
    if output.values.dtype.kind in "iu" and not output.scale:
        return Head("unclear", "integer codes without a scale have no real values")
    on_lattice = answers.narrow[answers.task.output] is not None and output.scale is not None
    step = abs(float(np.float32(output.scale or 0))) if on_lattice else 0.0
    values = real(output)
    finite: Mask = np.asarray(np.isfinite(values).all(axis=1))
    known = values if finite.all() else values[finite]
    if not len(known):
        return Head("unclear", "no sample is finite")
    full: Mask | bool = known >= _ceiling(output) if step else False
    least, most, slack = _rounding(known, output.values.dtype, step, full)
    low, high = float(known.min()), float(known.max())
    span = f"values from {low:.4g} to {high:.4g}"
    if low < 0 or high > 1 + slack:
        return Head("logits", f"{span}: through a softmax", _spread(softmax(known, axis=1), finite))
    if not ((least <= 1 + slack) & (most >= 1 - slack)).all():
        sums = known.sum(axis=1)
        told = f"{span} that sum to {sums.min():.4g} to {sums.max():.4g}"
        return Head("unclear", f"{told}: not one distribution, however rounded")
    by = f"half a step ({step / 2:.2g}) of each class" if step else f"{slack:.2g}"
    told = f"{span} that sum to 1 within {by}"
    whole = _filled(known, step, full) if step else known
    p = whole / whole.sum(axis=1, keepdims=True)
    return Head("probabilities", told, _spread(p, finite), max(step / 2, SMALLEST))


def _rounding(
    values: Floats, dtype: np.dtype[Any], step: float, full: Mask | bool
) -> tuple[Floats, Floats, float]:
    """The range of what each sample's [n] probabilities can have summed to.

    The least and the most before they were rounded to ``values`` [n, classes], and how far off a
    sum may be for the arithmetic itself.

    On a lattice a code stands for what lies within half a step of it, not below 0; one at the top
    of the lattice (``full``) for all up to 1. So a code of 0 may hide up to half a step, and 1,001
    of them everything; but codes above 0 hide nothing beyond half a step each, so that two classes
    of 0.7 are no distribution at any number of classes. The arithmetic: KERNEL_STEPS, and
    KERNEL_BITS for each exponential added up.

    Floats are not spread: with e_i the exponentials and u the unit roundoff, p_i = e_i / sum(e).
    Adding n of them is off by (n - 1) u of the sum at most, dividing and storing by u each, a
    reciprocal in the division's place by one more: |sum(p) - 1| <= (n + 2) u, and the last term
    covers second orders. Half floats are added up in wider ones or in pairs: log2(n) in place of n,
    which would allow anything.
    """
    classes = values.shape[1]
    if step:
        least = np.maximum(values - step / 2, 0).sum(axis=1)
        most = np.where(full, 1.0, values + step / 2).sum(axis=1)
        return least, most, KERNEL_STEPS * step + (classes + 3) * KERNEL_BITS
    sums = values.sum(axis=1)
    with np.errstate(over="ignore"):
        half = dtype == np.float16 or np.array_equal(values.astype(np.float16), values)
    if half:
        return sums, sums, (float(np.log2(classes)) + 3) * HALF
    return sums, sums, (classes + 3) * float(np.finfo(dtype).eps) / 2


def _ceiling(output: Output) -> float:
    """The largest value of the lattice, infinity where that is not known."""
    top = output.code_max
    if top is None and output.values.dtype.kind in "iu":
        top = int(np.iinfo(output.values.dtype).max)
    if top is None or not output.scale or output.scale < 0:
        return np.inf
    return (top - (output.zero_point or 0)) * float(np.float32(output.scale))


def _filled(values: Floats, step: float, full: Mask | bool) -> Floats:
    """Give what a sample's sum lacks of 1 to the codes that can hide it.

    To those at the top of the lattice, else to those of 0, half a step each at most. So 1,001 codes
    of 0 are uniform.
    """
    lacking = np.maximum(1 - values.sum(axis=1, keepdims=True), 0)
    top = np.broadcast_to(np.asarray(full), values.shape)
    tops, zeros = top.sum(axis=1, keepdims=True), (values == 0).sum(axis=1, keepdims=True)
    hidden = np.minimum(lacking / np.maximum(zeros, 1), step / 2)
    found: Floats = values + np.where(
        tops > 0, top * lacking / np.maximum(tops, 1), (values == 0) * hidden
    )
    return found


def _spread(rows: Floats, finite: Mask) -> Floats:
    if finite.all():
        return rows
    found = np.full((len(finite), rows.shape[1]), np.nan)
    found[finite] = rows
    return found
