"""Several coordinators on one database, and what a killed one leaves behind."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import pytest

from orchestrator.errors import InfraError
from orchestrator.queue.states import AttemptState, CellState
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from tests.integration.store_kit import OK, add_devices, cells, hold, lease_of, open_at, work

SPAWN = get_context("spawn")


def test_a_new_store_may_be_opened_by_several_processes_at_once(tmp_path: Path) -> None:
    moment = time.time() + 4
    opening = [SPAWN.Process(target=open_at, args=(tmp_path / "farm", moment)) for _ in range(4)]
    for process in opening:
        process.start()
    for process in opening:
        process.join(60)
    assert [process.exitcode for process in opening] == [0] * 4
    with Store.open(tmp_path / "farm") as store:
        assert store.runs() == []


def test_several_coordinators_claim_each_cell_exactly_once(tmp_path: Path) -> None:
    devices = ["a", "b", "c"]
    with Store.open(tmp_path) as store:
        add_devices(store, *devices)
        run = store.create_run(name="r", frozen={}, cells=cells(60, ["x", "y", "z"], devices))
    coordinators = [
        SPAWN.Process(target=work, args=(tmp_path, run, devices, 3, 0.0)) for _ in range(4)
    ]
    for process in coordinators:
        process.start()
    for process in coordinators:
        process.join(120)
    assert [process.exitcode for process in coordinators] == [0] * 4
    with Store.open(tmp_path) as store:
        done = store.attempts(run)
        assert Counter(attempt.cell for attempt in done) == dict.fromkeys(
            (cell.id for cell in store.cells(run)), 1
        )
        assert all(a.result == {"cell": a.cell} and a.state is AttemptState.OK for a in done)
        assert store.leases() == []
        # A token belongs to one holder, and each slot's cells went to one unit.
        assert len({(cell.slot, cell.unit) for cell in store.cells(run)}) == 3
        unit = {cell.id: cell.unit for cell in store.cells(run)}
        assert all(attempt.device == unit[attempt.cell] for attempt in done)


def test_a_killed_coordinator_is_expired_at_once_and_its_late_result_refused(
    tmp_path: Path,
) -> None:
    with Store.open(tmp_path) as store:
        add_devices(store, "pi")
        run = store.create_run(name="r", frozen={}, cells=cells(3))
        ready = tmp_path / "ready"
        holder = SPAWN.Process(target=hold, args=(tmp_path, run, "pi", ready))
        holder.start()
        while not ready.exists():
            assert holder.is_alive()
            time.sleep(0.02)
        left = json.loads(ready.read_text())
        assert store.acquire_lease("pi", this_process()) is None
        os.kill(holder.pid or 0, signal.SIGKILL)
        holder.join()

        lease = lease_of(store, "pi")
        assert lease.token == left["token"] + 1
        with pytest.raises(InfraError, match="E-LEASE-STALE"):
            store.finish(left["attempt"], left["token"], OK)
        while claim := store.claim(run, lease):
            store.finish(claim.attempt, lease.token, OK)
        assert store.run(run).cells[CellState.DONE] == 3
        by_state = Counter(attempt.state for attempt in store.attempts(run))
        assert by_state == {AttemptState.OK: 3, AttemptState.CANCELLED: 1}
        [lost] = [a for a in store.attempts(run) if a.state is AttemptState.CANCELLED]
        assert (lost.id, lost.error_id) == (left["attempt"], "E-COORDINATOR-LOST")


def test_killing_coordinators_at_any_moment_counts_every_cell_once(tmp_path: Path) -> None:
    chance = random.Random(7)
    devices = ["a", "b"]
    with Store.open(tmp_path) as store:
        add_devices(store, *devices)
        run = store.create_run(name="r", frozen={}, cells=cells(80, ["x", "y"], devices))
        for _ in range(4):
            victim = SPAWN.Process(target=work, args=(tmp_path, run, devices, 20, 0.005))
            victim.start()
            before = store.run(run).cells[CellState.DONE]
            while victim.is_alive() and store.run(run).cells[CellState.DONE] == before:
                time.sleep(0.005)
            time.sleep(chance.random() * 0.1)
            os.kill(victim.pid or 0, signal.SIGKILL)
            victim.join()
        finisher = SPAWN.Process(target=work, args=(tmp_path, run, devices, 20, 0.0))
        finisher.start()
        finisher.join(120)
        assert finisher.exitcode == 0
        counted = store.cells(run)
        assert all(c.state is CellState.DONE and c.outcome is AttemptState.OK for c in counted)
        attempts = store.attempts(run)
        good = [a for a in attempts if a.state is AttemptState.OK]
        assert sorted(a.id for a in good) == sorted(str(c.attempt) for c in counted)
        assert len({a.cell for a in good}) == len(good) == 80
        assert {a.error_id for a in attempts if a.state is not AttemptState.OK} <= {
            "E-COORDINATOR-LOST"
        }
        assert store.leases() == []
