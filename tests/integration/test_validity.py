"""The small version of the validity benchmark, on another seed every day."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.benchmarks.validity.__main__ import Corpus, first, second
from tests.benchmarks.validity.score import of

TODAY = int(time.time() // 86_400)
"""Another corpus every day, so that the rules are not tuned on one."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("make", "alarmed", "right"),
    [
        (lambda: first(TODAY, 1, samples=200, boards=False), 1, 0.9),
        (lambda: second(TODAY, 1, nets=2, boards=False), 5, 0.8),
    ],
    ids=["quickstart", "held out"],
)
def test_what_is_planted_is_found_and_named_and_nothing_else_is(
    make: Callable[[], Corpus], alarmed: int, right: float
) -> None:
    """One case may be missed: 4 of 1,243 of the quickstart's were, none of 2,371 held out.

    Of its nulls none raised an alarm in 1,458. Of those held out some do, which the guide counts
    as missing the aim; of the two nets of a day 2, 2, 0 and 0 in 30 did: six would be news.
    """
    corpus = make()
    found, silent = corpus.defects, corpus.nulls
    assert len(found) >= 20
    missed = {s.kind: s.missed for s in (*found, *silent) if s.missed}
    every = of(found, lambda s: s.above["all"])
    assert every.k >= every.n - 1, missed
    alarms = of(silent, lambda s: s.found["all"])
    assert alarms.k <= alarmed, missed
    named = of(found, lambda s: s.named["all"])
    assert named.k >= right * named.n, missed
    # Every method finds what another one cannot: that is what they are for.
    for method in ("accuracy", "cross", "layers", "files"):
        alone = of(found, lambda s, method=method: s.found[method])  # type: ignore[misc]
        assert 0 < alone.k < every.k, method
