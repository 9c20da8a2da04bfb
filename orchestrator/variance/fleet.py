"""One model file on all its devices at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.variance.answers import Answers
from orchestrator.variance.intervals import Rate, rate
from orchestrator.variance.tasks import Mask, Regression, TaskError, disagree


@dataclass(frozen=True)
class Fleet:
    """``instability``: share of samples that at least one row decides right and at least one wrong

    (as Cidon et al., arXiv 2010.09028); None without labels. ``unanimity``: share of samples that
    all rows decide alike.
    """

    n: int
    rows: int
    instability: Rate | None
    unanimity: Rate


def spread(rows: Sequence[Answers], confidence: float = 0.95) -> Fleet:
    """``rows``: one at least. Raises TaskError when they decide different numbers of samples."""
    if len({r.decisions.shape for r in rows}) != 1:
        raise TaskError("the rows do not decide the same samples")
    n = rows[0].n
    right = [r.correct for r in rows if r.correct is not None]
    unstable = None
    if len(right) == len(rows):
        some, every = np.any(right, axis=0), np.all(right, axis=0)
        unstable = rate(int(np.sum(some & ~every)), n, confidence)
    return Fleet(n, len(rows), unstable, rate(int(_unanimous(rows).sum()), n, confidence))


def _unanimous(rows: Sequence[Answers]) -> Mask:
    """Every pair agrees. Regression agreement is not transitive: the extremes decide."""
    task = rows[0].task
    if isinstance(task, Regression):
        values = np.stack([r.decisions for r in rows])
        return ~disagree(task, values.max(axis=0), values.min(axis=0))  # NaN spreads: no agreement
    alike = np.ones(rows[0].n, dtype=bool)
    for row in rows:
        alike &= ~disagree(task, rows[0].decisions, row.decisions)
    return alike
