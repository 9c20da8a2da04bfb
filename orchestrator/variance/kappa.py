"""Agreement of two rows' decisions beyond chance."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from orchestrator.variance.intervals import Estimate
from orchestrator.variance.lattice import Array
from orchestrator.variance.tasks import NO_DECISION


def cohen(a: Array, b: Array, confidence: float = 0.95) -> Estimate:
    """Cohen's kappa (1960) of decisions ``a`` and ``b``, integers [n]: -1 to 1, 1 if all are equal.

    The interval is normal with the large-sample variance of Fleiss, Cohen & Everitt (1969), cut at
    -1 and 1. It has no width where nothing differs: read the disagreement's interval then. No
    value where both decide one and the same class throughout, for chance explains that as well.
    A missing decision agrees with nothing.
    """
    n = len(a)
    a, b = np.where(a == NO_DECISION, -1, a), np.where(b == NO_DECISION, -2, b)
    classes, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    rows, columns = index[:n], index[n:]
    p_row, p_column = (np.bincount(i, minlength=classes.size) / n for i in (rows, columns))
    agree = rows == columns
    observed, chance = float(agree.mean()), float(p_row @ p_column)
    if bool(agree.all()):
        value = 1.0 if classes.size > 1 else None
        return Estimate(value, n, value, value)
    kappa = (observed - chance) / (1 - chance)
    both = p_column[rows] + p_row[columns]  # of each sample's cell of the table
    inside = np.square(1 - chance - both * (1 - observed))
    outside = (1 - observed) ** 2 * np.square(both)
    spread = float(np.where(agree, inside, outside).mean())
    spread -= (observed * chance - 2 * chance + observed) ** 2
    half = float(ndtri(1 - (1 - confidence) / 2)) * math.sqrt(max(spread, 0) / n)
    half /= (1 - chance) ** 2
    return Estimate(kappa, n, max(-1.0, kappa - half), min(1.0, kappa + half))
