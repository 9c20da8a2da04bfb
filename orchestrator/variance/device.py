"""One model on one device: accuracy, and how it departs from the FP32 parent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.variance import sample
from orchestrator.variance.answers import Answers
from orchestrator.variance.calibration import Calibration, Confidence, calibration, confidence
from orchestrator.variance.intervals import Difference, Estimate, Rate, mcnemar, mean, paired, rate
from orchestrator.variance.lattice import Array
from orchestrator.variance.softmax import Head, Kind
from orchestrator.variance.tasks import disagree

TOP = 5


@dataclass(frozen=True)
class AgainstFp32:
    """A device against its FP32 parent.

    ``accuracy`` is FP32's own. ``c_to_i``: samples FP32 gets right and the device wrong, ``i_to_c``
    the reverse; all four of accuracy, flips and ``mcnemar_p`` are None without labels.
    ``disagreement`` counts changed decisions, right or wrong.
    """

    accuracy: Rate | None
    disagreement: Rate
    c_to_i: int | None
    i_to_c: int | None
    mcnemar_p: float | None


@dataclass(frozen=True)
class DeviceStats:
    """``head``: what the deciding output holds, ``head_why``: by what that was decided.

    ``accuracy`` and ``top5`` (the right class is among the five largest; None for five classes or
    fewer), ``change`` (accuracy minus FP32's) and ``calibration`` need labels. ``entropy``, ``kld``
    (of FP32 from this row) and ``tv`` are means over samples, in nats, nats and 0 to 1.
    """

    n: int
    nonfinite: int
    head: Kind
    head_why: str
    accuracy: Rate | None
    top5: Rate | None
    entropy: Estimate | None
    confidence: Confidence | None
    calibration: Calibration | None
    fp32: AgainstFp32 | None
    change: Difference | None
    kld: Estimate | None
    tv: Estimate | None


def stats(
    answers: Answers,
    own: Head,
    parent: tuple[Answers, Head] | None,
    labels: Array | None,
    seed: int,
) -> DeviceStats:
    """Everything about one row and its FP32 ``parent``; ``own``: the row's head.

    Raises TaskError when the two decide different numbers of samples or values.
    """
    against = None if parent is None else against_fp32(answers, parent[0])
    change = None
    if against is not None and against.c_to_i is not None and against.i_to_c is not None:
        change = paired(against.i_to_c, against.c_to_i, answers.n)
    kld = tv = None
    if parent is not None and _comparable(own, parent[1]):
        kld, tv = mean(sample.kld(parent[1], own)), mean(sample.tv(parent[1], own))
    return DeviceStats(
        n=answers.n,
        nonfinite=answers.nonfinite,
        head=own.kind,
        head_why=own.why,
        accuracy=accuracy(answers),
        top5=_top(answers, labels),
        entropy=None if own.p is None else mean(sample.entropy(own.p)),
        confidence=confidence(own.p1),
        calibration=calibration(answers, own, labels, seed),
        fp32=against,
        change=change,
        kld=kld,
        tv=tv,
    )


def _comparable(a: Head, b: Head) -> bool:
    return a.p is not None and b.p is not None and a.p.shape == b.p.shape


def _top(answers: Answers, labels: Array | None) -> Rate | None:
    best = sample.top_k(answers, TOP)
    if best is None or labels is None or answers.outputs[answers.task.output].values[0].size <= TOP:
        return None
    hits = (best == labels.reshape(-1, 1)).any(axis=1)
    return rate(int(hits.sum()), answers.n)


def accuracy(answers: Answers, confidence: float = 0.95) -> Rate | None:
    """Share of samples decided right, with its interval; None without labels."""
    if answers.correct is None:
        return None
    return rate(int(answers.correct.sum()), answers.n, confidence)


def against_fp32(answers: Answers, fp32: Answers, confidence: float = 0.95) -> AgainstFp32:
    """Raises TaskError when the two decide different numbers of samples or values."""
    differ = rate(
        int(disagree(answers.task, answers.decisions, fp32.decisions).sum()), answers.n, confidence
    )
    if answers.correct is None or fp32.correct is None:
        return AgainstFp32(None, differ, None, None, None)
    lost = int(np.sum(fp32.correct & ~answers.correct))
    gained = int(np.sum(answers.correct & ~fp32.correct))
    return AgainstFp32(accuracy(fp32, confidence), differ, lost, gained, mcnemar(lost, gained))
