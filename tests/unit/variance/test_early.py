"""A fail that is certain early is the fail of the whole sweep, and nothing else is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from orchestrator.signoff.gates import at_most
from orchestrator.variance.answers import read
from orchestrator.variance.early import certain_after, early, near_ties_first, needed
from orchestrator.variance.intervals import lower_bound
from orchestrator.variance.lattice import Output
from orchestrator.variance.tasks import Anomaly, Classification, Regression
from tests.unit.variance.arrays import f32, i8

LIMITS = st.sampled_from([0.0, 0.001, 0.005, 0.05, 0.5, 1.0])


@given(st.integers(0, 300), LIMITS, st.sampled_from([0.9, 0.95, 0.99]))
def test_the_count_needed_is_the_least_that_fails(n: int, limit: float, confidence: float) -> None:
    failing = [k for k in range(n + 1) if lower_bound(k, n, confidence) > limit]
    assert needed(n, limit, confidence) == (failing[0] if failing else None)


@given(hnp.arrays(np.bool_, st.integers(1, 400)), LIMITS, st.randoms())
def test_certain_in_any_order_is_what_the_gate_says_of_all(
    differ: Any, limit: float, random: Any
) -> None:
    n, k = len(differ), int(differ.sum())
    order = list(range(n))
    random.shuffle(order)
    found = certain_after(differ[order], needed(n, limit))
    verdict = at_most("G6", k, n, limit, 0.95, "differ", ()).verdict
    assert (found is not None) == (verdict == "fail")
    if found is not None:
        seen = differ[order][:found]
        # With the rest all equal it still fails; one sample earlier that was open.
        assert at_most("G6", int(seen.sum()), n, limit, 0.95, "", ()).verdict == "fail"
        assert at_most("G6", int(seen[:-1].sum()), n, limit, 0.95, "", ()).verdict != "fail"


def test_near_ties_come_first_and_undecided_samples_before_them() -> None:
    quantised = read(Classification(), [Output("y", i8([[9, 0], [5, 4], [3, 3], [0, 2]]), 0.1, 0)])
    assert near_ties_first(quantised).tolist() == [2, 1, 3, 0]
    values = f32([[0.9, 0.1], [0.6, 0.41], [np.nan, 1], [np.inf, np.inf], [0.51, 0.5]])
    assert near_ties_first(read(Classification(), [Output("y", values)])).tolist() == [
        2, 3, 4, 1, 0,
    ]  # fmt: skip
    scores = [Output("y", i8([[9], [4], [5]]), 1.0, 0)]
    assert near_ties_first(read(Anomaly(5.0), scores)).tolist() == [2, 1, 0]
    assert near_ties_first(read(Regression(1.0), scores)).tolist() == [0, 1, 2]


def test_early_by_hand() -> None:
    margins = np.arange(100)[::-1]  # the last samples are the nearest ties
    reference = read(
        Classification(), [Output("y", np.stack([margins, 0 * margins], 1).astype(np.int8), 0.1, 0)]
    )
    differ = margins < 10
    found = early(reference, differ, 0.005, 0.95)
    assert found.needed == 3
    assert (found.near_ties_first, found.own_order, found.n) == (3, 93, 100)
    assert early(reference, margins < 2, 0.005, 0.95).near_ties_first is None
    assert needed(100, 0.005) == pytest.approx(3)
