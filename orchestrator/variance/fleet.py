"""One model file on all its devices at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance.answers import Answers
from orchestrator.variance.intervals import Rate, rate
from orchestrator.variance.lattice import Array
from orchestrator.variance.tasks import NO_DECISION, Mask, Regression, Task, TaskError, disagree


@dataclass(frozen=True)
class Fleet:
    """How much a fleet's rows differ among each other.

    ``instability``: share of samples that at least one row decides right and at least one wrong (as
    Cidon et al., arXiv 2010.09028); None without labels. ``unanimity``: share of samples that all
    rows decide alike.
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
    alike = unanimous(rows[0].task, [r.decisions for r in rows])
    return Fleet(n, len(rows), unstable, rate(int(alike.sum()), n, confidence))


def vote_entropy(rows: Sequence[Answers]) -> NDArray[np.float64] | None:
    """-sum v log v over the shares v of rows that decide alike, of each sample [n], nats.

    0 where all decide alike, log(rows) where no two do. A missing decision is alike to no other.
    None for regression, whose decisions are no classes. Raises TaskError as ``spread``.
    """
    if len({r.decisions.shape for r in rows}) != 1:
        raise TaskError("the rows do not decide the same samples")
    if isinstance(rows[0].task, Regression):
        return None
    votes = np.stack([r.decisions for r in rows])
    found = np.zeros(rows[0].n)
    for vote in votes:  # each of v rows of a share v / m adds log(v / m) / m
        alike = np.where(vote == NO_DECISION, 1, (votes == vote).sum(axis=0))
        found -= np.log(alike / len(rows)) / len(rows)
    return found + 0.0


def unanimous(task: Task, rows: Sequence[Array]) -> Mask:
    """Which samples all rows (one at least) decide alike, bool [n]; a NO_DECISION never is.

    Regression agreement is not transitive: the extremes decide. Raises TaskError.
    """
    if isinstance(task, Regression):
        values = np.stack(rows)
        return ~disagree(task, values.max(axis=0), values.min(axis=0))  # NaN spreads: no agreement
    alike = np.ones(len(rows[0]), dtype=bool)
    for row in rows:
        alike &= ~disagree(task, rows[0], row)
    return alike
