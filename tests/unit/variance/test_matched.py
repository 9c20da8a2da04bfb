"""Exactly one factor changes, each sample counts once, and the worst pair is named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.variance.agreement import Rater
from orchestrator.variance.answers import read
from orchestrator.variance.lattice import Output
from orchestrator.variance.matched import Elements, elements, matched
from orchestrator.variance.tasks import Classification
from tests.unit.variance.arrays import i8
from tests.unit.variance.raters import rater

TASK = Classification()


def counted(a: Rater, b: Rater) -> Elements:
    """One element a sample."""
    n = min(a.n, b.n)
    return Elements(int((a.hashes[:n] != b.hashes[:n]).any(axis=1).sum()), n, None)


def moved(raters: Sequence[Rater]) -> dict[str, tuple[int, int, int, int, int]]:
    """factor -> pairs, identical, n, samples moved, decisions moved."""
    return {
        m.factor: (m.pairs, m.identical, m.n, m.bits.k, m.decisions.k)
        for m in matched(TASK, raters, counted)
    }


def test_each_factor_alone() -> None:
    raters = [
        rater("a", [0, 0, 0]),
        rater("t2", [0, 0, 0], threads=2),
        rater("ref", [0, 0, 1], kernels="reference"),
        rater("both", [1, 1, 1], threads=2, kernels="reference"),
        rater("unit", [0, 0, 0], [0, 0, "other bytes"], unit="box-2"),
    ]
    assert moved(raters) == {
        "unit": (1, 0, 3, 1, 0),
        "threads": (2, 1, 3, 2, 2),
        "kernels": (2, 0, 3, 3, 3),
    }


def test_a_sample_counts_once_however_many_pairs_move_it() -> None:
    answers = {1: [1, 0, 0, 0], 2: [2, 0, 0, 0], 4: [1, 0, 7, 0], 8: [1, 0, 7, 0]}
    raters = [rater(str(t), decided, threads=t) for t, decided in answers.items()]
    (found,) = matched(TASK, raters, counted)
    assert (found.factor, found.pairs, found.identical) == ("threads", 6, 1)
    assert (found.bits.k, found.bits.n, found.decisions.k) == (2, 4, 2)
    assert (found.elements.different, found.elements.compared) == (1 + 1 + 1 + 2 + 2 + 0, 24)


def test_the_worst_pair_is_named_with_its_own_interval() -> None:
    raters = [rater("a", [0] * 10), rater("b", [0] * 9 + [1], threads=2),
              rater("c", [1] * 10, threads=8)]  # fmt: skip
    (found,) = matched(TASK, raters, counted)
    worst = found.worst
    assert (worst.a_value, worst.b_value, worst.disagreement.k) == ("1", "8", 10)
    assert worst.disagreement.low == pytest.approx(0.6915, abs=5e-5)


def test_a_side_that_does_not_repeat_itself_makes_the_pair_unsteady() -> None:
    raters = [rater("a", [0, 0]), rater("again", [0, 1], time=1.0), rater("t2", [0, 0], threads=2)]
    (found,) = matched(TASK, raters, counted)
    assert (found.pairs, found.identical, found.unsteady) == (2, 1, 2)


def test_repeats_of_one_answer_are_one_answer() -> None:
    raters = [rater("a", [0, 1]), rater("again", [0, 1]), rater("t2", [0, 1], threads=2)]
    assert moved(raters) == {"threads": (1, 1, 2, 0, 0)}


def test_only_common_samples_and_nothing_from_one_rater() -> None:
    assert moved([rater("a", [0, 1, 2]), rater("t2", [0, 0], threads=2)]) == {
        "threads": (1, 0, 2, 1, 1)
    }
    assert moved([rater("a", [0])]) == {}
    assert moved([]) == {}


def test_elements_are_of_the_samples_that_both_answered() -> None:
    def answers(values: list[list[int]]) -> object:
        return read(TASK, [Output("y", i8(values), 0.5, 0, -128, 127)])

    long, short = answers([[1, 5], [7, 2], [0, 1]]), answers([[1, 5], [4, 2]])
    assert elements(long, short) == Elements(1, 4, 3)  # type: ignore[arg-type]
    assert elements(long, long) == Elements(0, 6, 0)  # type: ignore[arg-type]


def test_ten_thousand_classes_and_many_raters_stay_cheap() -> None:
    decided = np.random.default_rng(3).integers(0, 10_000, 200)
    raters = [rater(str(t), decided.tolist(), threads=t) for t in range(1, 40)]
    assert moved(raters) == {"threads": (39 * 38 // 2, 39 * 38 // 2, 200, 0, 0)}
