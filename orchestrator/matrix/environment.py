"""What an environment that a worker reports says of its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLOCK_TOLERANCE_S = 60.0
"""A clock this far off is worth a word: more than any link delays the worker's first line."""


def clock_note(offset: float | None) -> str | None:
    """What to tell of a device's clock that is ``offset`` seconds ahead; None when it is right.

    Nothing measured depends on it: durations are taken on monotonic clocks, and the times of an
    attempt are the coordinator's.
    """
    if offset is None or abs(offset) <= CLOCK_TOLERANCE_S:
        return None
    return f"device clock off by {offset:+,.0f} s"


def emulated(environment: Mapping[str, Any]) -> bool:
    """Whether a board is emulated, or a library stands in for an accelerator: no real hardware."""
    board, delegate = environment.get("board") or {}, environment.get("delegate") or {}
    return bool(board.get("emulated")) or bool(delegate.get("standin"))
