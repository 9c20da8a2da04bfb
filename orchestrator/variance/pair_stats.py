"""Two rows of one model file beyond their codes: decisions, confidence, real values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from orchestrator.variance import sample
from orchestrator.variance.answers import Answers
from orchestrator.variance.bootstrap import bootstrap
from orchestrator.variance.drift import Mmd, mmd, psi
from orchestrator.variance.intervals import Difference, Estimate, mcnemar, mean, paired
from orchestrator.variance.kappa import cohen
from orchestrator.variance.lattice import Output, real
from orchestrator.variance.softmax import Head
from orchestrator.variance.tasks import Regression, TaskError

BLOCK = 1 << 18
"""Elements whose real values are held at once."""
MMD_SAMPLES = 500
"""Of each side: time and memory grow with their square."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Confidences:
    """``jsd`` mean Jensen-Shannon divergence of the samples' probabilities, nats, 0 to ln 2.

    Of the largest probability p1 over all samples: ``w1`` Wasserstein-1 distance, ``ks``
    Kolmogorov-Smirnov statistic (both 0 to 1), ``psi`` (all three: paired bootstrap). ``mmd`` of
    all probabilities, over MMD_SAMPLES spread evenly over the set; its p takes the two for
    independent, and being of the same samples they are nearer, so it errs to the large side.
    """

    jsd: Estimate
    w1: Estimate
    ks: Estimate
    psi: Estimate
    mmd: Mmd | None


@dataclass(frozen=True)
class RealUnits:
    """a - b of all ``n`` elements finite in both, in the outputs' real units."""

    n: int
    max_abs: float | None
    mean_signed: float | None
    rmse: float | None


@dataclass(frozen=True)
class Between:
    """Row a against row b.

    ``kappa`` None for regression. ``accuracy`` a minus b and ``mcnemar_p`` need labels.
    ``mean_lsb``: a - b, mean over samples of each one's mean over the outputs that have codes on
    one lattice on both sides; None where there is none. ``confidences`` need probabilities on both
    sides. ``lattices``: outputs whose scale or zero point differ, "scale/zero point" of a and of b;
    such are compared in real units only. ``real`` is None where integers without a scale have no
    real values.
    """

    kappa: Estimate | None
    accuracy: Difference | None
    mcnemar_p: float | None
    mean_lsb: Estimate | None
    confidences: Confidences | None
    lattices: dict[str, tuple[str, str]]
    real: RealUnits | None


def between(a: Answers, b: Answers, heads: tuple[Head, Head], seed: int) -> Between:
    """Raises TaskError where the two are not of one shape. ``heads``: of a and of b."""
    shapes = [tuple(o.values.shape for o in side.outputs) for side in (a, b)]
    if shapes[0] != shapes[1]:
        raise TaskError(f"outputs of shapes {shapes[0]} and {shapes[1]} cannot be compared")
    accuracy = p = None
    if a.correct is not None and b.correct is not None:
        only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
        accuracy, p = paired(only_a, only_b, a.n), mcnemar(only_a, only_b)
    return Between(
        kappa=None if isinstance(a.task, Regression) else cohen(a.decisions, b.decisions),
        accuracy=accuracy,
        mcnemar_p=p,
        mean_lsb=mean_lsb(a, b),
        confidences=confidences(*heads, seed),
        lattices=_lattices(a.outputs, b.outputs),
        real=real_units(a.outputs, b.outputs),
    )


def confidences(a: Head, b: Head, seed: int) -> Confidences | None:
    """Over samples finite on both sides; None where a side has no probabilities."""
    if a.p is None or b.p is None or a.p1 is None or b.p1 is None:
        return None
    finite = np.isfinite(a.p1) & np.isfinite(b.p1)
    x, y, n = a.p1[finite], b.p1[finite], int(finite.sum())
    if not n:
        return None
    return Confidences(
        jsd=mean(sample.jsd(a, b)),
        w1=bootstrap(lambda i: float(wasserstein_distance(x[i], y[i])), n, seed),
        ks=bootstrap(lambda i: kolmogorov_smirnov(x[i], y[i]), n, seed),
        psi=bootstrap(lambda i: psi(x[i], y[i]), n, seed),
        mmd=_mmd(a.p[finite], b.p[finite], seed),
    )


def _mmd(p: Floats, q: Floats, seed: int) -> Mmd | None:
    """None of fewer than two samples."""
    if len(p) < 2:
        return None
    some = np.unique(np.linspace(0, len(p) - 1, min(len(p), MMD_SAMPLES)).astype(np.intp))
    return mmd(p[some], q[some], seed)


def kolmogorov_smirnov(x: Floats, y: Floats) -> float:
    """Largest distance of the two empirical distribution functions.

    scipy's ks_2samp would also make a p for independent samples, which these are not, and for
    which a bootstrap has no time.
    """
    x, y = np.sort(x), np.sort(y)
    both = np.concatenate([x, y])
    below_x = np.searchsorted(x, both, side="right") / len(x)
    below_y = np.searchsorted(y, both, side="right") / len(y)
    return float(np.abs(below_x - below_y).max())


def mean_lsb(a: Answers, b: Answers) -> Estimate | None:
    """Elements of a sample depend on each other, so the interval is over samples."""
    totals, elements = np.zeros(a.n), 0
    for x, y, p, q in zip(a.outputs, b.outputs, a.narrow, b.narrow, strict=True):
        if p is None or q is None or (x.scale, x.zero_point) != (y.scale, y.zero_point):
            continue
        totals += _row_sums(p) - _row_sums(q)
        elements += p.shape[1]
    return mean(totals / elements) if elements else None


def _row_sums(codes: NDArray[np.integer[Any]]) -> Floats:
    """Exact but for sums of 64-bit codes, which may not fit an integer."""
    found = codes.sum(axis=1, dtype=np.int64 if codes.itemsize <= 4 else np.float64)
    return np.asarray(found, dtype=np.float64)


def real_units(a: tuple[Output, ...], b: tuple[Output, ...]) -> RealUnits | None:
    if any(o.values.dtype.kind in "iu" and not o.scale for o in (*a, *b)):
        return None
    n, largest, total, squares = 0, 0.0, 0.0, 0.0
    for x, y in zip(a, b, strict=True):
        rows = max(1, BLOCK // max(1, x.values[:1].size))
        for start in range(0, len(x.values), rows):
            some = _part(x, start, rows) - _part(y, start, rows)
            some = some[np.isfinite(some)]
            if some.size:
                n += some.size
                largest = max(largest, float(np.abs(some).max()))
                total, squares = total + float(some.sum()), squares + float(np.dot(some, some))
    if not n:
        return RealUnits(0, None, None, None)
    return RealUnits(n, largest, total / n, float(np.sqrt(squares / n)))


def _part(output: Output, start: int, rows: int) -> Floats:
    part = Output(output.name, output.values[start : start + rows], output.scale, output.zero_point)
    with np.errstate(invalid="ignore"):
        return real(part)


def _lattices(a: tuple[Output, ...], b: tuple[Output, ...]) -> dict[str, tuple[str, str]]:
    return {
        x.name: (_lattice(x), _lattice(y))
        for x, y in zip(a, b, strict=True)
        if (x.scale, x.zero_point) != (y.scale, y.zero_point)
    }


def _lattice(output: Output) -> str:
    if output.scale is None:
        return "none"
    return f"{output.scale:.6g}/{output.zero_point or 0}"
