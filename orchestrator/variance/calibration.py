"""Does a device know what it does not know: confidence against correctness, one row at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance import sample
from orchestrator.variance.answers import Answers
from orchestrator.variance.bootstrap import bootstrap
from orchestrator.variance.intervals import Estimate, Rate, mean, quantile, rate
from orchestrator.variance.lattice import Array
from orchestrator.variance.softmax import Head

BINS = 15
LOW_CONFIDENCE = 0.5
"""Below it no class has the majority: what an application would ask again for."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Confidence:
    """How confident and how well calibrated a row is.

    ``p1_percentiles``: 10th, 50th and 90th of the largest probability p1; ``low``: share of samples
    below LOW_CONFIDENCE. Only samples with a finite output count.
    """

    n: int
    p1_percentiles: tuple[Estimate, Estimate, Estimate]
    low: Rate


@dataclass(frozen=True)
class Calibration:
    """``ece`` 0 to 1 with a bootstrap interval, ``brier`` 0 to 2, ``nll`` nats."""

    ece: Estimate
    brier: Estimate
    nll: Estimate


def confidence(p1: Floats | None) -> Confidence | None:
    """``p1``: `Head.p1` [n]. None where it holds no probabilities, or no sample is finite."""
    known = np.empty(0) if p1 is None else p1[np.isfinite(p1)]
    if not len(known):
        return None
    p10, p50, p90 = (quantile(known, q) for q in (0.1, 0.5, 0.9))
    low = rate(int((known < LOW_CONFIDENCE).sum()), len(known))
    return Confidence(len(known), (p10, p50, p90), low)


def calibration(answers: Answers, of: Head, labels: Array | None, seed: int) -> Calibration | None:
    """None without labels or probabilities, or where no sample is finite."""
    if of.p is None or of.p1 is None or labels is None or answers.correct is None:
        return None
    finite = np.isfinite(of.p1)
    if not finite.any():
        return None
    p1, right = of.p1[finite], answers.correct[finite]
    ece = bootstrap(lambda i: expected_calibration_error(p1[i], right[i]), len(p1), seed)
    return Calibration(ece, mean(brier(of.p, labels)), mean(sample.nll(of, labels)))


def expected_calibration_error(p1: Floats, right: Mask) -> float:
    """ECE = sum over bins of n_b / n * |accuracy_b - mean confidence_b| (Guo et al. 2017).

    BINS bins of equal width, open below and closed above; 0 is in the first.
    """
    bins = np.clip(np.ceil(p1 * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right - p1, minlength=BINS)
    return float(np.abs(gaps).sum()) / len(p1)


def brier(p: Floats, labels: Array) -> Floats:
    """sum over classes of (p - [class is right])^2 for each sample: 0 to 2 (Brier 1950)."""
    n = len(p)
    right = p[np.arange(n), labels.reshape(n).astype(np.int64)]
    found: Floats = np.square(p).sum(axis=1) + np.square(1 - right) - np.square(right)
    return np.maximum(found, 0.0)
