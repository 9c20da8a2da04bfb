"""Every state a run, cell, attempt or lease can be in, and every legal step between them.

docs/guides/states.md draws the same diagram; a test keeps the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    DONE = "done"


class CellState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"


class AttemptState(StrEnum):
    """``RUNNING``, or the outcome of a finished attempt."""

    RUNNING = "running"
    OK = "ok"
    MODEL_ERROR = "model_error"
    INFRA_ERROR = "infra_error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    NOT_AVAILABLE = "not_available"

    @property
    def final(self) -> bool:
        return self is not AttemptState.RUNNING


class LeaseState(StrEnum):
    FREE = "free"
    HELD = "held"


OUTCOMES = frozenset(state for state in AttemptState if state.final)

RUN_STEPS: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING}),
    RunState.RUNNING: frozenset({RunState.INTERRUPTED, RunState.DONE}),
    # Two coordinators may share a run: one is interrupted, the other works it off.
    RunState.INTERRUPTED: frozenset({RunState.RUNNING, RunState.DONE}),
    # One coordinator may queue what its last answer calls for after another saw no cell left.
    RunState.DONE: frozenset({RunState.RUNNING}),
}

CELL_STEPS: Mapping[CellState, frozenset[CellState]] = {
    CellState.PENDING: frozenset({CellState.RUNNING, CellState.DONE}),
    CellState.RUNNING: frozenset({CellState.PENDING, CellState.DONE}),
    CellState.DONE: frozenset(),
}

ATTEMPT_STEPS: Mapping[AttemptState, frozenset[AttemptState]] = {
    state: frozenset() if state.final else OUTCOMES for state in AttemptState
}

LEASE_STEPS: Mapping[LeaseState, frozenset[LeaseState]] = {
    LeaseState.FREE: frozenset({LeaseState.HELD}),
    LeaseState.HELD: frozenset({LeaseState.FREE}),
}
