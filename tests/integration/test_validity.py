"""The small version of the validity benchmark, on another seed every day."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import numpy as np
import pytest

from tests.benchmarks.validity import defects, nulls
from tests.benchmarks.validity.__main__ import Corpus, _corpus, first, second
from tests.benchmarks.validity.case import Case, Kind, Undrawn
from tests.benchmarks.validity.score import MOST_DRAWS, of, results
from tests.benchmarks.validity.table import lines
from tests.benchmarks.validity.world import HASWELL, ORT, Random, World, quickstart, world

TODAY = int(time.time() // 86_400)
"""Another corpus every day, so that the rules are not tuned on one."""


@pytest.mark.timeout(1800)
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


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    """With this very CPU in the place of the board that saturates."""
    with world(quickstart(100), boards=False) as found:
        board = cast("Any", found.sound(ORT, True))
        yield replace(found, remote={HASWELL: board}, missing={})


def test_a_kind_that_this_cpu_cannot_show_is_left_out_and_named(there: World) -> None:
    """Two CPUs that add products alike show no saturation, however often they are asked."""
    saturation = next(r for r in defects.RUNS if r[2] == HASWELL)
    (planter,) = defects.real(there, [saturation])
    found = _corpus("it", there, [1], 1, [planter, defects.float_head], [nulls.again])
    assert [s.kind for s in found.defects] == ["computed in float"]
    assert found.missing["saturation"].endswith("byte products in pairs in int16")
    told = list(lines("it", found.defects, found.nulls, found.missing))
    assert f"not here: saturation: {found.missing['saturation']}" in told


def test_a_file_that_no_net_has_is_named(there: World) -> None:
    planter = defects.against(Kind("it", "plan"), ORT, ORT, "u4u4.onnx")
    found, short = results(planter, there, np.random.default_rng(1), 2)
    assert (found, short) == ([], Undrawn("it", "no net here has u4u4.onnx"))


def test_draws_in_which_nothing_differs_come_to_an_end(there: World) -> None:
    """Two threads answer as one does: what is said to be another plan is none."""
    same = defects.against(Kind("it", "plan"), ORT, replace(ORT, threads=2), "u8u8.onnx")
    drawn = []

    def counted(world: World, random: Random) -> Iterator[Case | Undrawn]:
        one = next(same(world, random))
        while True:
            drawn.append(one)
            yield one

    found, short = results(counted, there, np.random.default_rng(1), 3)
    assert (found, short) == ([], Undrawn("it", "no byte differs"))
    assert len(drawn) == MOST_DRAWS


def test_fewer_cases_than_asked_for_are_kept_and_said(there: World) -> None:
    def two(world: World, random: Random) -> Iterator[Case | Undrawn]:
        yield from islice(nulls.again(world, random), 2)
        while True:
            yield Undrawn("it", "nothing is left")

    found, short = results(two, there, np.random.default_rng(1), 5)
    assert len(found) == 2
    said = f"2 of 5 cases, then none in {MOST_DRAWS} draws: nothing is left"
    assert short == Undrawn("it", said)
