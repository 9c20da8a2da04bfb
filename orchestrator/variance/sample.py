"""Sample by sample: arrays [n], float64 in nats or fractions; NaN where a sample has no answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, kl_div, rel_entr

from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import Array, real
from orchestrator.variance.softmax import Head, head
from orchestrator.variance.tasks import NO_DECISION, Classification, TaskError, disagree, tensor

Floats = NDArray[np.float64]


def samples(
    answers: Answers, labels: Array | None = None, fp32: Answers | None = None
) -> dict[str, Array]:
    """Every figure of a sample that can be known here, by name; what cannot be is left out.

    ``p1``, ``entropy`` and ``top`` [n, 5] (classes, best first) of a classifier; ``margin`` in LSB;
    ``correct`` and ``nll`` with ``labels``; against ``fp32`` ``disagree``, ``c_to_i``, ``i_to_c``,
    ``kld`` and ``tv``. Raises TaskError where the two decide different samples.
    """
    own = head(answers)
    found: dict[str, Array | None] = {
        "decision": answers.decisions,
        "correct": answers.correct,
        "margin": answers.margins,
        "top": top_k(answers),
        "p1": own.p1,
        "entropy": None if own.p is None else entropy(own.p),
        "nll": None if own.p is None or labels is None else nll(own, labels),
    }
    if fp32 is not None:
        found["disagree"] = disagree(answers.task, answers.decisions, fp32.decisions)
        if answers.correct is not None and fp32.correct is not None:
            found["c_to_i"] = fp32.correct & ~answers.correct
            found["i_to_c"] = ~fp32.correct & answers.correct
        parent = head(fp32)
        if own.p is not None and parent.p is not None:
            found["kld"], found["tv"] = kld(parent, own), tv(parent, own)
    return {name: values for name, values in found.items() if values is not None}


def top_k(answers: Answers, k: int = 5) -> NDArray[np.int64] | None:
    """The ``k`` classes of largest value, best first, the first one on ties.

    int64 [n, min(k, classes)], NO_DECISION throughout for a sample that is not finite. None for
    other tasks.
    """
    if not isinstance(answers.task, Classification):
        return None
    values = real(tensor(answers.task, answers.outputs))
    best = np.argsort(-values, axis=1, kind="stable")[:, :k].astype(np.int64)
    best[~np.isfinite(values).all(axis=1)] = NO_DECISION
    return best


def entropy(p: Floats) -> Floats:
    """-sum p log p of each row (Shannon 1948): 0 to log(classes)."""
    found: Floats = entr(p).sum(axis=1)
    return found


def nll(of: Head, labels: Array) -> Floats:
    """-log p of the right class, at most -log(floor)."""
    assert of.p is not None
    right = of.p[np.arange(len(of.p)), labels.reshape(len(of.p)).astype(np.int64)]
    found: Floats = 0.0 - np.log(np.maximum(right, of.floor))
    return found


def kld(parent: Head, child: Head) -> Floats:
    """KL(parent || child) = sum p32 log(p32 / p8), 0 or more.

    Probabilities below the coarser of both floors count as that floor, which the device cannot
    tell from 0; the generalised form keeps the sum from going negative by it (scipy's kl_div).
    """
    p, q = _both(parent, child)
    floor = max(parent.floor, child.floor)
    found: Floats = kl_div(np.maximum(p, floor), np.maximum(q, floor)).sum(axis=1)
    return found


def tv(a: Head, b: Head) -> Floats:
    """Total variation 1/2 sum |p - q|: 0 to 1, symmetric."""
    p, q = _both(a, b)
    found: Floats = np.abs(p - q).sum(axis=1) / 2
    return found


def jsd(a: Head, b: Head) -> Floats:
    """Jensen-Shannon divergence (Lin 1991): 0 to ln 2, symmetric, 0 only for equal rows."""
    p, q = _both(a, b)
    mean = (p + q) / 2
    found: Floats = (rel_entr(p, mean) + rel_entr(q, mean)).sum(axis=1) / 2
    return np.maximum(found, 0.0)  # rounding


def _both(a: Head, b: Head) -> tuple[Floats, Floats]:
    assert a.p is not None
    assert b.p is not None
    if a.p.shape != b.p.shape:
        raise TaskError(f"probabilities of shapes {a.p.shape} and {b.p.shape} cannot be compared")
    return a.p, b.p
