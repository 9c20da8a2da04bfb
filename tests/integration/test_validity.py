"""The small version of the validity benchmark: everything planted here is found and named."""

from __future__ import annotations

import time

import pytest

from tests.benchmarks.validity.__main__ import scores
from tests.benchmarks.validity.score import pooled
from tests.benchmarks.validity.world import world

TODAY = int(time.time() // 86_400)
"""Another corpus every day, so that the rules are not tuned on one."""


@pytest.mark.timeout(600)
def test_what_is_planted_is_found_and_named_and_nothing_else_is() -> None:
    with world(samples=200, boards=False) as there:
        found, silent = scores(there, TODAY, count=3)
    assert len(found) >= 14
    missed = {s.kind: s.missed for s in (*found, *silent) if s.missed}
    every = pooled(s.flagged["all"] for s in found)
    assert every.k == every.n, missed
    alarms = pooled(s.flagged["all"] for s in silent)
    assert alarms.k == 0, missed
    # A draw of a rare kind may be named otherwise; the full benchmark says how often.
    named = pooled(s.named for s in found if s.named)
    assert named.k >= 0.9 * named.n, missed
    # The audit sees what an accuracy benchmark does not: that is what it is for.
    assert pooled(s.flagged["accuracy"] for s in found).k < every.k
