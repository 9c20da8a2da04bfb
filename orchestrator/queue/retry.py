"""Is a cell finished after its latest attempt, or does it wait for another one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.queue.states import AttemptState, CellState


@dataclass(frozen=True)
class AttemptSummary:
    """A finished attempt. ``retryable`` only says something of an ``infra_error``."""

    state: AttemptState
    retryable: bool = False


@dataclass(frozen=True)
class Decision:
    """``cell``: the cell's next state. ``failures``: infrastructure failures so far."""

    cell: CellState
    failures: int


def decide(retry_infra: int, attempts: Sequence[AttemptSummary]) -> Decision:
    """What follows the last of ``attempts`` (in order, all finished, at least one).

    A retryable infrastructure error is tried up to ``retry_infra`` more times. A cancelled attempt
    (operator, lost coordinator) says nothing of the cell: it goes back without using up a retry.
    Everything else ends the cell. A timeout is an answer about a measurement, so it is never
    rerun in silence.

    Raises ValueError for an empty sequence, a running attempt or a negative budget.
    """
    if retry_infra < 0:
        raise ValueError("retry_infra is negative")
    if not attempts or any(not attempt.state.final for attempt in attempts):
        raise ValueError("decide() needs finished attempts, at least one")
    failures = sum(attempt.state is AttemptState.INFRA_ERROR for attempt in attempts)
    last = attempts[-1]
    again = last.state is AttemptState.CANCELLED or (
        last.state is AttemptState.INFRA_ERROR and last.retryable and failures <= retry_infra
    )
    return Decision(CellState.PENDING if again else CellState.DONE, failures)
