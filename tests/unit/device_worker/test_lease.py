"""The device-side fence, on real files and a real flock."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from pathlib import Path

import pytest

from device_worker.errors import WorkerError
from device_worker.lease import Lease


def lease(root: Path, owner: str, token: int, observe: float = 0.3, pid: int = 1) -> Lease:
    found = Lease(str(root), owner, token, observe)
    found._pid = pid  # several sessions in one test process
    return found


def test_a_lower_token_of_the_same_owner_is_refused_for_ever(tmp_path: Path) -> None:
    first = lease(tmp_path, "a", 7)
    assert first.acquire()
    first.release()
    with pytest.raises(WorkerError) as caught:
        lease(tmp_path, "a", 6).acquire()
    assert (caught.value.kind, caught.value.code) == ("stale", "E-LEASE-STALE")
    other = lease(tmp_path, "b", 1)
    assert other.acquire()
    other.release()
    with pytest.raises(WorkerError, match="E-LEASE-STALE"):
        lease(tmp_path, "a", 6).acquire()


def test_the_same_grant_may_have_several_sessions(tmp_path: Path) -> None:
    first, second = lease(tmp_path, "a", 1, pid=1), lease(tmp_path, "a", 1, pid=2)
    assert first.acquire()
    assert not second.acquire(), "joining is not a fresh lease"
    first.release()
    second.check()
    second.release()
    with pytest.raises(WorkerError, match="E-LEASE-STALE"):
        second.check()


def test_a_higher_token_takes_over_and_the_older_session_notices(tmp_path: Path) -> None:
    old, new = lease(tmp_path, "a", 1, pid=1), lease(tmp_path, "a", 2, pid=2)
    old.acquire()
    old.beat()
    assert new.acquire()
    for use in (old.beat, old.check):
        with pytest.raises(WorkerError) as caught:
            use()
        assert caught.value.kind == "stale"
    old.release()
    new.check()


def test_a_living_holder_of_another_farm_is_left_alone(tmp_path: Path) -> None:
    holder = lease(tmp_path, "a", 1)
    holder.acquire()
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            holder.beat()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(WorkerError) as caught:
            lease(tmp_path, "b", 99, observe=5.0).acquire()
    finally:
        stop.set()
        thread.join()
    assert (caught.value.kind, caught.value.code) == ("infra_error", "E-LEASE-HELD")
    assert "'a'" in caught.value.what
    holder.check()


def test_a_dead_holder_of_another_farm_is_taken_over_after_observing(tmp_path: Path) -> None:
    dead = lease(tmp_path, "a", 5, pid=1)
    dead.acquire()
    begin = time.monotonic()
    assert lease(tmp_path, "b", 1, observe=0.5, pid=2).acquire()
    assert time.monotonic() - begin >= 0.5
    with pytest.raises(WorkerError, match="E-LEASE-STALE"):
        dead.beat()


def test_wall_clocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_clock() -> float:
        raise AssertionError("wall clock used")

    monkeypatch.setattr(time, "time", no_clock)
    lease(tmp_path, "a", 1).acquire()
    os.utime(tmp_path / "lease.json", (4e9, 4e9))
    assert lease(tmp_path, "b", 1).acquire()


def test_a_lock_that_is_never_let_go_does_not_hang_us(tmp_path: Path) -> None:
    with (tmp_path / "lease.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(WorkerError, match="E-LEASE-HELD"):
            lease(tmp_path, "a", 1, observe=0.1).acquire()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"owner": "a"}'])
def test_a_damaged_lease_is_refused_instead_of_forgotten(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease.json").write_text(text)
    with pytest.raises(WorkerError, match="E-LEASE-CORRUPT"):
        lease(tmp_path, "a", 1).acquire()
    assert (tmp_path / "lease.json").read_text() == text


def test_the_counter_rises_with_every_beat(tmp_path: Path) -> None:
    holder = lease(tmp_path, "a", 3)
    holder.acquire()
    counters = [holder.beat() for _ in range(3)]
    assert counters == sorted(set(counters))
    state = json.loads((tmp_path / "lease.json").read_text())
    assert (state["owner"], state["token"], state["counter"]) == ("a", 3, counters[-1])
