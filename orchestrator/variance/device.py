"""One model on one device: accuracy, and how it departs from the FP32 parent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.variance.answers import Answers
from orchestrator.variance.intervals import Rate, mcnemar, rate
from orchestrator.variance.tasks import disagree


@dataclass(frozen=True)
class AgainstFp32:
    """``accuracy`` is FP32's own. ``c_to_i`` samples FP32 gets right and the device wrong,

    ``i_to_c`` the reverse; all four of accuracy, flips and ``mcnemar_p`` are None without labels.
    ``disagreement`` counts samples decided otherwise, right or wrong.
    """

    accuracy: Rate | None
    disagreement: Rate
    c_to_i: int | None
    i_to_c: int | None
    mcnemar_p: float | None


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
