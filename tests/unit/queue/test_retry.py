from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.queue.retry import AttemptSummary, decide
from orchestrator.queue.states import OUTCOMES, AttemptState, CellState

INFRA = AttemptSummary(AttemptState.INFRA_ERROR, retryable=True)
CANCELLED = AttemptSummary(AttemptState.CANCELLED)
OK = AttemptSummary(AttemptState.OK)

attempts = st.builds(AttemptSummary, st.sampled_from(sorted(OUTCOMES)), st.booleans())


@pytest.mark.parametrize(
    "outcome",
    [AttemptState.OK, AttemptState.MODEL_ERROR, AttemptState.TIMEOUT, AttemptState.NOT_AVAILABLE],
)
@given(before=st.lists(st.sampled_from([INFRA, CANCELLED])), retryable=st.booleans())
def test_answers_end_a_cell_whatever_came_before(
    outcome: AttemptState, before: list[AttemptSummary], retryable: bool
) -> None:
    last = AttemptSummary(outcome, retryable)
    assert decide(9, [*before, last]).cell is CellState.DONE


@given(budget=st.integers(0, 5), cancelled=st.lists(st.integers(0, 6), max_size=6))
def test_infrastructure_is_retried_exactly_the_budget_however_often_cancelled(
    budget: int, cancelled: list[int]
) -> None:
    history: list[AttemptSummary] = []
    for n in range(budget + 1):
        for _ in range(cancelled.count(n)):
            history.append(CANCELLED)
            assert decide(budget, history).cell is CellState.PENDING
        history.append(INFRA)
        decision = decide(budget, history)
        assert decision.failures == n + 1
        assert decision.cell is (CellState.PENDING if n < budget else CellState.DONE)


@given(history=st.lists(attempts), budget=st.integers(0, 5))
def test_a_failure_that_no_retry_fixes_ends_the_cell(
    history: list[AttemptSummary], budget: int
) -> None:
    last = AttemptSummary(AttemptState.INFRA_ERROR, retryable=False)
    assert decide(budget, [*history, last]).cell is CellState.DONE


@given(history=st.lists(attempts), budget=st.integers(0, 5))
def test_a_cancelled_attempt_always_puts_the_cell_back(
    history: list[AttemptSummary], budget: int
) -> None:
    assert decide(budget, [*history, CANCELLED]).cell is CellState.PENDING


@pytest.mark.parametrize(
    ("budget", "history"),
    [(2, []), (-1, [OK]), (2, [AttemptSummary(AttemptState.RUNNING)])],
)
def test_nonsense_is_refused(budget: int, history: list[AttemptSummary]) -> None:
    with pytest.raises(ValueError):
        decide(budget, history)
