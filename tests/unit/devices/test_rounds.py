"""Several devices at once: one that hangs holds nobody up."""

from __future__ import annotations

import threading
import time

from orchestrator.devices.parallel import side_by_side


def test_those_that_hang_hold_nobody_up() -> None:
    release, stop = threading.Event(), threading.Event()

    def work(name: str) -> str:
        if name.startswith("hangs"):
            release.wait(60)
        return f"{name} done"

    names = ["hangs-1", "hangs-2", "a", "b", "c"]
    begin = time.monotonic()
    told = side_by_side(names, work, lambda name: f"{name} late", limit_s=1.0, stop=stop, at_once=2)
    try:
        found = dict(told)
    finally:
        release.set()
    assert found == {
        **{name: f"{name} late" for name in names[:2]},
        **{name: f"{name} done" for name in names[2:]},
    }
    assert time.monotonic() - begin < 30
    assert stop.is_set()


def test_no_more_than_so_many_at_once_and_each_exactly_once() -> None:
    guard, running, most = threading.Lock(), 0, 0

    def work(name: str) -> str:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with guard:
            running -= 1
        return name

    names = [str(n) for n in range(20)]
    stop = threading.Event()
    told = list(side_by_side(names, work, str, limit_s=60, stop=stop, at_once=3))
    assert sorted(told) == sorted((name, name) for name in names)
    assert 1 < most <= 3


def test_leaving_early_stops_what_runs_and_begins_nothing_more() -> None:
    stop, begun = threading.Event(), []

    def work(name: str) -> str:
        begun.append(name)
        if name != "first":
            assert stop.wait(60)
        return name

    told = side_by_side(["first", "second", "third"], work, str, limit_s=60, stop=stop, at_once=2)
    assert next(told) == ("first", "first")
    told.close()
    assert stop.is_set()
    assert "third" not in begun
