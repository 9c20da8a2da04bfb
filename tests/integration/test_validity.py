"""The small version of the validity benchmark, on another seed every day."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from orchestrator.variance.intervals import lower_bound
from tests.benchmarks.validity.__main__ import Corpus, first, second
from tests.benchmarks.validity.score import of

TODAY = int(time.time() // 86_400)
"""Another corpus every day, so that the rules are not tuned on one."""
SURE = 0.999
"""So few cases of so few nets may be unlucky ones: only what no luck excuses fails. The rates are

for the whole benchmark to say (docs/guides/validity.md).
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "make",
    [
        lambda: first(TODAY, 1, samples=200, boards=False),
        lambda: second(TODAY, 1, nets=2, boards=False),
    ],
    ids=["quickstart", "held out"],
)
def test_what_is_planted_is_found_and_named_and_nothing_else_is(
    make: Callable[[], Corpus],
) -> None:
    corpus = make()
    found, silent = corpus.defects, corpus.nulls
    assert len(found) >= 20
    missed = {s.kind: s.missed for s in (*found, *silent) if s.missed}
    every = of(found, lambda s: s.above["all"])
    assert every.k >= 0.9 * every.n, missed
    alarms = of(silent, lambda s: s.found["all"])
    assert lower_bound(alarms.k, alarms.n, SURE) < 0.1, missed
    named = of(found, lambda s: s.named["all"])
    assert named.k >= 0.8 * named.n, missed
    # Every method finds what another one cannot: that is what they are for.
    for method in ("accuracy", "cross", "layers", "files"):
        alone = of(found, lambda s, method=method: s.found[method])  # type: ignore[misc]
        assert 0 < alone.k < every.k, method
