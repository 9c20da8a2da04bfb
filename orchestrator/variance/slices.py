"""One row, slice by slice: where a loss that the whole hides is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.answers import Answers
from orchestrator.variance.bootstrap import bootstrap
from orchestrator.variance.calibration import (
    Confidence,
    confidence,
    expected_calibration_error,
)
from orchestrator.variance.intervals import (
    Difference,
    Estimate,
    Rate,
    apart,
    holm,
    p_loss,
    paired,
    rate,
)
from orchestrator.variance.lattice import Array
from orchestrator.variance.softmax import Head
from orchestrator.variance.tasks import TaskError, disagree

MAX_VALUES = 100
"""A column with more values is a measurement, not a grouping."""
ALPHA = 0.05


@dataclass(frozen=True)
class Slice:
    """Samples whose ``column`` is ``value``.

    Without labels all but ``n``, ``disagreement`` and ``confidence`` is None, without an FP32
    parent all but ``n``, ``accuracy``, ``ece`` and ``confidence``. ``change``: INT8 accuracy minus
    FP32's; ``gained`` and ``lost`` in it are the flips I->C and C->I. ``p_loss``: of the claim that
    this slice loses more than it gains, by its ``distinct`` inputs: one that stands there several
    times is one piece of evidence.
    """

    column: str
    value: str
    n: int
    distinct: int
    fp32: Rate | None
    accuracy: Rate | None
    change: Difference | None
    disagreement: Rate | None
    ece: Estimate | None
    confidence: Confidence | None
    p_loss: float | None


def slices(
    answers: Answers,
    fp32: Answers | None,
    of: Head,
    columns: Mapping[str, Array],
    seed: int,
    same: NDArray[np.int64] | None = None,
) -> list[Slice]:
    """Every value of every column, in the order of columns and of sorted values.

    ``columns``: name -> [n], of any comparable kind. ``same`` [n]: equal where inputs are, see
    `same_inputs`; default: none are. Raises TaskError for a column of another
    length or with more than MAX_VALUES values, or an FP32 parent that decides other samples.
    """
    differ = None if fp32 is None else disagree(answers.task, answers.decisions, fp32.decisions)
    same, found = np.arange(answers.n) if same is None else same, list[Slice]()
    for name, values in columns.items():
        if values.shape != (answers.n,):
            raise TaskError(
                f"slice {name!r} has shape {values.shape}, there are {answers.n} samples"
            )
        distinct, index = np.unique(values, return_inverse=True)
        if len(distinct) > MAX_VALUES:
            raise TaskError(
                f"slice {name!r} has {len(distinct)} values, more than {MAX_VALUES}: "
                "it is no grouping"
            )
        found += [
            _slice(name, str(value), index == i, answers, fp32, differ, of, seed, same)
            for i, value in enumerate(distinct)
        ]
    return found


def same_inputs(inputs: Array) -> NDArray[np.int64]:
    """Of each sample of ``inputs`` [n, ...] the first that has its very bytes, [n]."""
    known: dict[bytes, int] = {}
    return np.array(
        [known.setdefault(hashlib.sha256(x.tobytes()).digest(), i) for i, x in enumerate(inputs)],
        dtype=np.int64,
    )


def worst(found: Sequence[Slice]) -> tuple[Slice, Estimate] | None:
    """The slice whose accuracy changes most for the worse, and by how much.

    By how much worse than the whole of its column (0 or less, a fraction): (1 - w) (change of the
    slice - change of the rest), w being its share of the samples. The interval takes the slice as
    given, not as the worst of many. None without changes.
    """
    known = [(s, c, c.difference) for s in found if (c := s.change) and c.difference is not None]
    if not known:
        return None
    least, change, _ = min(known, key=lambda k: k[2])
    rest = [s.change for s in found if s.column == least.column and s is not least and s.change]
    gained, lost, n = (sum(getattr(c, k) for c in rest) for k in ("gained", "lost", "n"))
    if not n:
        return least, Estimate(0.0, least.n, 0.0, 0.0)
    gap = apart(change, paired(gained, lost, n))
    share = n / gap.n
    return least, replace(gap, **{k: share * getattr(gap, k) for k in ("value", "low", "high")})


def adjusted(found: Sequence[Slice]) -> list[float | None]:
    """``p_loss`` adjusted by Holm for all of ``found`` (of all rows, where several)."""
    told = iter(holm([s.p_loss for s in found if s.p_loss is not None]))
    return [None if s.p_loss is None else next(told) for s in found]


def losing(found: Sequence[Slice], alpha: float = ALPHA) -> list[bool]:
    """Which slices lose accuracy, by `adjusted`."""
    return [p is not None and p < alpha for p in adjusted(found)]


def _slice(
    column: str,
    value: str,
    mask: NDArray[np.bool_],
    answers: Answers,
    fp32: Answers | None,
    differ: NDArray[np.bool_] | None,
    of: Head,
    seed: int,
    same: NDArray[np.int64],
) -> Slice:
    n = int(mask.sum())
    once = np.unique(same[mask], return_index=True)[1]
    right = None if answers.correct is None else answers.correct[mask]
    before = None if fp32 is None or fp32.correct is None else fp32.correct[mask]
    change = p = ece = None
    if right is not None and before is not None:
        gained, lost = int((right & ~before).sum()), int((before & ~right).sum())
        change = paired(gained, lost, n)
        p = p_loss(int((right & ~before)[once].sum()), int((before & ~right)[once].sum()))
    if right is not None and of.p1 is not None:
        p1 = of.p1[mask]
        finite = np.isfinite(p1)
        sure, known = p1[finite], right[finite]
        if len(sure):
            ece = bootstrap(
                lambda i: expected_calibration_error(sure[i], known[i]), len(sure), seed
            )
    return Slice(
        column=column,
        value=value,
        n=n,
        distinct=len(once),
        fp32=None if before is None else rate(int(before.sum()), n),
        accuracy=None if right is None else rate(int(right.sum()), n),
        change=change,
        disagreement=None if differ is None else rate(int(differ[mask].sum()), n),
        ece=ece,
        confidence=None if of.p1 is None else confidence(of.p1[mask]),
        p_loss=p,
    )
