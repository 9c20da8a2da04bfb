"""How few samples already decide that a rate is too high. Pure.

A count of events never falls. Once the samples seen hold as many as would fail the gate over all
of them, the whole sweep fails, whatever the rest would say: in any order, at any time, with no
error beyond the gate's own. Only *fail* can be decided so; a pass needs every sample.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance import tasks
from orchestrator.variance.answers import Answers
from orchestrator.variance.intervals import lower_bound
from orchestrator.variance.lattice import real
from orchestrator.variance.tasks import Classification, Mask

Order = NDArray[np.intp]


@dataclass(frozen=True)
class Early:
    """The count that makes a failure of the whole sweep certain.

    ``needed`` events among ``n`` samples put the lower bound above ``limit``: a fail of the whole
    sweep, certain after so many samples in their own order or near ties first. None where it does
    not fail.
    """

    n: int
    limit: float
    needed: int | None
    own_order: int | None
    near_ties_first: int | None


def early(reference: Answers, differ: Mask, limit: float, confidence: float) -> Early:
    """``differ`` [n]: the samples decided differently than by ``reference``."""
    n = len(differ)
    least = needed(n, limit, confidence)
    ordered = differ[near_ties_first(reference)]
    return Early(n, limit, least, certain_after(differ, least), certain_after(ordered, least))


def needed(n: int, limit: float, confidence: float = 0.95) -> int | None:
    """The smallest count of events in ``n`` samples that shows a rate above ``limit``.

    That is the first whose one-sided Clopper-Pearson lower bound does; None where no count's does.
    """
    k = bisect_left(range(n + 1), True, key=lambda k: lower_bound(k, n, confidence) > limit)
    return k if k <= n else None


def certain_after(differ: Mask, count: int | None) -> int | None:
    """Samples until ``count`` of ``differ`` [n], in the order in which they are asked, are true."""
    found = np.flatnonzero(differ)
    if count is None or len(found) < count:
        return None
    return int(found[count - 1]) + 1 if count else 0


def near_ties_first(reference: Answers) -> Order:
    """Samples by the reference's margin, the smallest first; those without a decision before all.

    Margins are in steps, or of real values where an output lies on no lattice. Ties, and samples
    whose task has no margin, stay in their own order.
    """
    margins = reference.margins
    if margins is None and isinstance(reference.task, Classification):
        values = real(tasks.tensor(reference.task, reference.outputs))
        with np.errstate(invalid="ignore"):
            two = np.partition(values, values.shape[1] - 2, axis=1)[:, -2:]
            margins = np.nan_to_num(two[:, 1] - two[:, 0], nan=-1.0)
        margins[~np.isfinite(values).all(axis=1)] = -1.0
    if margins is None:
        return np.arange(reference.n)
    return np.argsort(margins, kind="stable")
