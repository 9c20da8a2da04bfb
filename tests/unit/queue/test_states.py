"""docs/guides/states.md draws exactly the states and steps of the code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import pytest

from orchestrator.queue.states import (
    ATTEMPT_STEPS,
    CELL_STEPS,
    LEASE_STEPS,
    RUN_STEPS,
    AttemptState,
    CellState,
    LeaseState,
    RunState,
)

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "states.md"
ARROW = re.compile(r"^\s+(\S+) --> (\S+) : \S", re.MULTILINE)


@pytest.mark.parametrize(
    ("title", "states", "steps", "first"),
    [
        ("A. Run", RunState, RUN_STEPS, "queued"),
        ("B. Cell", CellState, CELL_STEPS, "pending"),
        ("C. Attempt", AttemptState, ATTEMPT_STEPS, "running"),
        ("D. Lease", LeaseState, LEASE_STEPS, "free"),
    ],
)
def test_the_page_draws_the_code(
    title: str, states: type[StrEnum], steps: Mapping[StrEnum, frozenset[StrEnum]], first: str
) -> None:
    section = PAGE.read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    drawn = ARROW.findall(section)
    coded = {(str(a), str(b)) for a, following in steps.items() for b in following}
    assert sorted(drawn) == sorted(coded | {("[*]", first)})
    assert set(steps) == set(states)
    assert {end for arrow in drawn for end in arrow} - {"[*]"} == {str(s) for s in states}


def test_only_running_attempts_are_not_final() -> None:
    assert [s for s in AttemptState if not s.final] == [AttemptState.RUNNING]
