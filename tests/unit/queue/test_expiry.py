from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.queue.expiry import LeaseWatch

steps = st.lists(
    st.tuples(st.floats(0, 20), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40
)


@given(start=st.floats(0, 1e6), steps=steps)
def test_expired_exactly_when_unchanged_for_the_whole_patience(
    start: float, steps: list[tuple[float, int, int]]
) -> None:
    watch = LeaseWatch(30.0)
    now, seen = start, list[tuple[float, tuple[int, int]]]()
    for wait, token, counter in steps:
        now += wait
        seen.append((now, (token, counter)))
        # The model: walk back over the unbroken stretch of equal observations.
        since = now
        for at, value in reversed(seen):
            if value != (token, counter):
                break
            since = at
        assert watch.observe("pi", token, counter, now) == (now - since >= 30.0)


@given(beats=st.lists(st.floats(0, 29.9), max_size=50))
def test_a_holder_that_beats_in_time_is_never_expired(beats: list[float]) -> None:
    watch, now = LeaseWatch(30.0), 1000.0
    for counter, wait in enumerate(beats):
        now += wait
        assert not watch.observe("pi", 1, counter, now)


def test_devices_are_watched_apart_and_a_new_token_starts_afresh() -> None:
    watch = LeaseWatch(30.0)
    assert not watch.observe("a", 1, 5, 0.0)
    assert not watch.observe("b", 1, 5, 20.0)
    assert watch.observe("a", 1, 5, 30.0)
    assert not watch.observe("b", 1, 5, 30.0)
    assert not watch.observe("a", 2, 5, 31.0)
    assert not watch.observe("b", 1, 6, 50.0)
    watch.forget("b")
    assert not watch.observe("b", 1, 6, 99.0)


def test_patience_must_be_positive() -> None:
    with pytest.raises(ValueError):
        LeaseWatch(0)
