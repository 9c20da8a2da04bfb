"""One store, one process: runs, claims, finishing, fencing, slots, verdicts."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, InputError
from orchestrator.queue.placement import Prefer
from orchestrator.queue.states import AttemptState, CellState, RunState
from orchestrator.store import owner
from orchestrator.store.database import Store
from orchestrator.store.owner import owner_is_dead, this_process
from orchestrator.store.readonly import glance
from orchestrator.store.records import AttemptRecord, BaselineKey, Blob, Owner, sha256_of
from tests.integration.store_kit import INFRA, OK, add_devices, cells, lease_of, samples

ELSEWHERE = Owner("c2", "another-host", "another-boot", 1, 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "farm") as store:
        add_devices(store, "pi", "pj")
        yield store


def test_a_run_is_found_by_id_prefix_and_as_the_latest(store: Store) -> None:
    first = store.create_run(name="100% dig_its!", frozen={"a": [1, None]}, cells=cells(2))
    second = store.create_run(name="other", frozen={}, cells=cells(1))
    assert [run.id for run in store.runs()] == [second, first]
    assert store.run().id == second
    assert store.run(first[:-2] if first[:-2] != second[:-2] else first).id == first
    assert "-100--dig-its-" in first
    assert store.frozen(first) == {"a": [1, None]}
    assert store.run(first).cells[CellState.PENDING] == 2
    for unknown in ("nope", "", "%", "_" * 10):
        with pytest.raises(InputError) as caught:
            store.run(unknown)
        assert caught.value.id in {"E-RUN-UNKNOWN", "E-RUN-AMBIGUOUS"}
    with pytest.raises(InputError) as caught:
        store.run(first[:3])
    assert caught.value.id == "E-RUN-AMBIGUOUS"


def test_a_whole_id_is_never_ambiguous(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "20261121-0112")
    found = []
    for tail in ("3f2a", "3f2a00", "3f"):
        monkeypatch.setattr("secrets.token_hex", lambda _, tail=tail: tail)
        found.append(store.create_run(name="r", frozen={}, cells=cells(1)))
    for run in found:
        assert store.run(run).id == run


def test_the_first_run_of_an_empty_store_is_unknown(store: Store) -> None:
    with pytest.raises(InputError, match="E-RUN-UNKNOWN"):
        store.run()


def test_claim_finish_and_read_back(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(2))
    lease = lease_of(store, "pi")
    claim = store.claim(run, lease)
    assert claim is not None
    assert (claim.cell.id, claim.number, claim.token) == ("pi-m0", 1, lease.token)
    assert (claim.cell.state, claim.cell.unit) == (CellState.RUNNING, "pi")
    record = replace(
        OK,
        hub="h",
        environment={"os": "Debian"},
        result={"outputs": [1.5]},
        error="bad \0 byte \ud800",
        artefacts=samples(store, 1),
    )
    done = store.finish(claim.attempt, lease.token, record)
    assert (done.already, done.cell) == (False, CellState.DONE)
    cell = store.cells(run)[0]
    assert (cell.state, cell.outcome, cell.attempt) == ("done", "ok", claim.attempt)
    [attempt] = store.attempts(run)
    assert attempt.artefacts == record.artefacts
    assert attempt.result == record.result
    assert attempt.error == "bad \ufffd byte ?"
    assert attempt.environment is not None
    assert store.environment_data(attempt.environment) == {"os": "Debian"}
    assert (attempt.codes_valid, attempt.timing_valid) == (True, True)
    assert (attempt.started, attempt.ended, attempt.hub) == (1.0, 2.0, "h")
    assert store.run(run).outcomes == {AttemptState.OK: 1}


def test_the_light_reader_answers_like_the_store(store: Store, tmp_path: Path) -> None:
    run = store.create_run(name="r", frozen={"a": 1}, cells=cells(3))
    lease = lease_of(store, "pi")
    claim = store.claim(run, lease)
    assert claim is not None
    store.finish(claim.attempt, lease.token, replace(OK, result={}, artefacts=samples(store, 1)))
    store.claim(run, lease)
    store.save_verdict(run, {"verdict": "pass"})
    with glance(tmp_path / "farm") as light:
        for one, other in (
            (light.runs(), store.runs()),
            (light.run(run[:-1]), store.run(run)),
            (light.frozen(run), store.frozen(run)),
            (light.cells(run), store.cells(run)),
            (light.attempts(run), store.attempts(run)),
            (light.devices(), store.devices()),
            (light.leases(), store.leases()),
            (light.verdict(run), store.verdict(run)),
        ):
            assert one == other
            assert one


def test_infrastructure_errors_are_retried_last_and_then_given_up(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(2), retry_infra=1)
    lease = lease_of(store, "pi")
    order = []
    while claim := store.claim(run, lease):
        order.append((claim.cell.id, claim.number))
        record = INFRA if claim.cell.id == "pi-m0" else OK
        store.finish(claim.attempt, lease.token, record)
    assert order == [("pi-m0", 1), ("pi-m1", 1), ("pi-m0", 2)]
    assert store.run(run).outcomes == {AttemptState.INFRA_ERROR: 1, AttemptState.OK: 1}
    first = store.cells(run)[0]
    assert first.failures == 2
    assert first.attempt == store.attempts(run)[-1].id


def test_finishing_again_with_the_same_record_changes_nothing(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(1))
    lease = lease_of(store, "pi")
    claim = store.claim(run, lease)
    assert claim is not None
    record = replace(OK, result={"a": 1, "b": 2}, artefacts=samples(store, 1))
    assert not store.finish(claim.attempt, lease.token, record).already
    before = store.attempts(run)
    store.release(lease)
    again = replace(record, result={"b": 2, "a": 1})
    assert store.finish(claim.attempt, lease.token, again).already
    assert store.attempts(run) == before


def test_a_finished_attempt_never_changes(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(1))
    lease = lease_of(store, "pi")
    claim = store.claim(run, lease)
    assert claim is not None
    store.finish(claim.attempt, lease.token, OK)
    before = store.attempts(run)
    with pytest.raises(InfraError, match="E-ATTEMPT-FINAL"):
        store.finish(claim.attempt, lease.token, replace(OK, ended=9.0))
    assert store.cancel_running(lease) == 0
    assert store.expire(store.leases()[0]) == 0
    assert store.attempts(run) == before
    assert store.cells(run)[0].state is CellState.DONE


def test_a_stale_token_is_refused_everywhere(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(2))
    old = lease_of(store, "pi")
    claim = store.claim(run, old)
    assert claim is not None
    assert store.expire(store.leases()[0]) == 1

    def refused() -> None:
        with pytest.raises(InfraError, match="E-LEASE-STALE") as caught:
            store.finish(claim.attempt, old.token, OK)
        assert not caught.value.retryable
        with pytest.raises(InfraError, match="E-LEASE-STALE"):
            store.claim(run, old)
        with pytest.raises(InfraError, match="E-LEASE-STALE"):
            store.cancel_running(old)
        assert store.renew([old]) == {"pi"}

    refused()  # while the lease is free
    new = lease_of(store, "pi")
    assert new.token == old.token + 1
    refused()  # while somebody else holds it
    store.release(old)  # must not free the new holder's lease
    assert store.renew([new]) == set()
    again = store.claim(run, new)
    assert again is not None
    assert (again.cell.id, again.number) == ("pi-m0", 2)
    with pytest.raises(InfraError, match="E-LEASE-STALE"):
        store.finish(again.attempt, old.token, OK)
    with pytest.raises(InfraError, match="E-ATTEMPT-UNKNOWN"):
        store.finish("f" * 32, new.token, OK)
    [first, _] = store.attempts(run)
    assert (first.state, first.error_id) == ("cancelled", "E-COORDINATOR-LOST")


def test_a_lease_is_exclusive_until_released(store: Store) -> None:
    lease = lease_of(store, "pi")
    assert store.acquire_lease("pi", this_process()) is None
    run = store.create_run(name="r", frozen={}, cells=cells(1))
    assert store.claim(run, lease) is not None
    store.release(lease)
    assert store.leases() == []
    assert store.cells(run)[0].state is CellState.PENDING
    assert lease_of(store, "pi").token == lease.token + 1
    with pytest.raises(InfraError, match="E-DEVICE-UNKNOWN"):
        store.acquire_lease("nobody", this_process())


def test_an_owner_elsewhere_is_only_expired_when_it_stands_still(store: Store) -> None:
    lease = store.acquire_lease("pi", ELSEWHERE)
    assert lease is not None
    assert store.acquire_lease("pi", this_process()) is None
    [seen] = store.leases()
    assert seen.owner == ELSEWHERE
    assert store.renew([lease]) == set()
    assert store.expire(seen) is None
    [seen] = store.leases()
    assert store.expire(seen) == 0
    assert store.expire(seen) is None
    assert lease_of(store, "pi").token == lease.token + 1


def test_who_is_dead() -> None:
    me = this_process()
    assert not owner_is_dead(me)
    assert owner_is_dead(replace(me, pid_start=me.pid_start + 1))
    assert owner_is_dead(replace(me, pid=2**22 + 1))
    for unknown in (
        replace(me, host="elsewhere", pid=2**22 + 1),
        replace(me, boot_id="another", pid=2**22 + 1),
        replace(me, pid_start=0, pid=2**22 + 1),
    ):
        assert not owner_is_dead(unknown)


def test_a_slot_stays_with_its_unit_and_two_slots_get_two_units(store: Store) -> None:
    plan = cells(6, ["rpi4", "rpi4#2"], ["pi", "pj"])
    run = store.create_run(name="r", frozen={}, cells=plan)
    pi, pj = lease_of(store, "pi"), lease_of(store, "pj")
    taken: dict[str, set[str]] = {"pi": set(), "pj": set()}
    for lease in (pj, pi, pi, pj, pi, pj, pi, pj):
        if claim := store.claim(run, lease):
            taken[lease.device].add(claim.cell.slot)
            store.finish(claim.attempt, lease.token, OK)
    assert taken == {"pj": {"rpi4"}, "pi": {"rpi4#2"}}
    assert store.run(run).cells[CellState.DONE] == 6
    assert store.unit_lost(run, "pj") == []


def test_a_slot_is_free_again_when_its_unit_is_lost_before_any_result(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(2, ["rpi4"], ["pi", "pj"]))
    pi, pj = lease_of(store, "pi"), lease_of(store, "pj")
    claim = store.claim(run, pi)
    assert claim is not None
    assert store.claim(run, pj) is None
    assert store.unit_lost(run, "pi") == []  # still running there
    store.finish(claim.attempt, pi.token, INFRA)
    assert store.unit_lost(run, "pi") == ["rpi4"]
    other = store.claim(run, pj)
    assert other is not None
    assert other.cell.unit == "pj"


def test_slots_that_cannot_all_be_served_are_refused_before_anything_is_written(
    store: Store,
) -> None:
    with pytest.raises(InputError, match="E-SLOTS"):
        store.create_run(name="r", frozen={}, cells=cells(2, ["a", "b"], ["pi"]))
    assert store.runs() == []


def test_the_loaded_environment_and_model_come_first(store: Store) -> None:
    plan = [
        replace(cell, model=model, env_key=env)
        for cell, model, env in zip(
            cells(5),
            ["m1", "m2", "m1", "m3", "m2"],
            ["ort", "ort", "tfl", "tfl", "tfl"],
            strict=True,
        )
    ]
    run = store.create_run(name="r", frozen={}, cells=plan)
    lease = lease_of(store, "pi")
    prefer, order = Prefer("tfl", "m2"), []
    while claim := store.claim(run, lease, prefer=prefer):
        order.append(claim.cell.position)
        prefer = Prefer(claim.cell.env_key, claim.cell.model)
        store.finish(claim.attempt, lease.token, OK)
    assert order == [4, 2, 3, 0, 1]


def test_cells_no_unit_took_are_given_up_with_a_reason(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(2))
    lease = lease_of(store, "pi")
    claim = store.claim(run, lease)
    assert claim is not None
    record = AttemptRecord(AttemptState.TIMEOUT, error_id="E-QUEUE-TIMEOUT", error="no unit")
    assert store.close_pending(run, ["pi-m0", "pi-m1"], record) == 1
    assert store.claim(run, lease) is None
    last = store.attempts(run)[-1]
    assert (last.cell, last.device, last.token) == ("pi-m1", None, 0)
    assert store.cells(run)[1].outcome is AttemptState.TIMEOUT
    with pytest.raises(ValueError):
        store.close_pending(run, ["pi-m0"], INFRA)


def test_run_states_follow_the_diagram(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(1))
    with pytest.raises(InfraError, match="E-RUN-STATE"):
        store.set_run_state(run, RunState.DONE)
    once = (RunState.RUNNING, RunState.RUNNING, RunState.INTERRUPTED, RunState.DONE)
    for state in (*once, *once):
        store.set_run_state(run, state)
        assert store.run(run).state is state
    with pytest.raises(InfraError, match="E-RUN-STATE"):
        store.set_run_state(run, RunState.INTERRUPTED)


def test_the_newest_verdict_counts_and_baselines_are_written_once(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(1))
    assert store.verdict(run) is None
    store.save_verdict(run, {"verdict": "inconclusive"})
    store.save_verdict(run, {"verdict": "pass"})
    assert store.verdict(run) == {"verdict": "pass"}

    environment = store.environment({"cpu": "a72"})
    assert environment == store.environment({"cpu": "a72"}) == sha256_of({"cpu": "a72"})
    key = BaselineKey("m" * 64, ["i" * 64], environment)
    assert store.baseline_get(key) is None
    assert store.baseline_put(key, {"n": 1}) == {"n": 1}
    assert store.baseline_put(key, {"n": 2}) == {"n": 1}
    assert store.baseline_get(key) == {"n": 1}
    assert store.baseline_get(replace(key, inputs=["j" * 64])) is None
    with pytest.raises(InfraError, match="E-STORE-DB"):
        store.baseline_put(replace(key, environment="unknown"), {})


def test_what_no_database_could_hold_is_refused_and_nothing_changes(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(1))
    lease = lease_of(store, "pi")
    claim = store.claim(run, lease)
    assert claim is not None
    nan = {"a": float("nan")}
    for act in (
        lambda: store.finish(claim.attempt, lease.token, replace(OK, result=nan)),
        lambda: store.environment(nan),
        lambda: store.save_verdict(run, nan),
        lambda: store.create_run(name="r", frozen=nan, cells=cells(1)),
        lambda: store.upsert_device("pi", "c", False, {"x": object()}),
    ):
        with pytest.raises(InfraError, match="E-STORE-VALUE"):
            act()
    missing = replace(OK, artefacts={"telemetry": Blob("0" * 64, 3)})
    with pytest.raises(InfraError, match="E-ARTEFACT-MISSING"):
        store.finish(claim.attempt, lease.token, missing)
    assert store.attempts(run)[0].state is AttemptState.RUNNING
    assert store.verdict(run) is None
    assert len(store.runs()) == 1
    assert not store.finish(claim.attempt, lease.token, OK).already


def test_many_threads_share_one_store(store: Store) -> None:
    names = [f"pi{n}" for n in range(8)]
    add_devices(store, *names)
    run = store.create_run(name="r", frozen={}, cells=cells(80, names))
    failures: list[BaseException] = []

    def drive(device: str) -> None:
        try:
            lease = lease_of(store, device)
            while claim := store.claim(run, lease):
                store.renew([lease])
                store.finish(claim.attempt, lease.token, OK)
            store.release(lease)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=drive, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert store.run(run).cells[CellState.DONE] == 80
    assert len(store.attempts(run)) == 80


def test_the_price_of_a_durable_claim_and_finish(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(100))
    lease = lease_of(store, "pi")
    times = []
    for _ in range(100):
        start = time.perf_counter()
        claim = store.claim(run, lease)
        assert claim is not None
        store.finish(claim.attempt, lease.token, OK)
        times.append(time.perf_counter() - start)
    with capsys.disabled():
        print(f"\nclaim + finish, durable: p50 {sorted(times)[50] * 1e3:.1f} ms")  # noqa: T201
    assert store.run(run).cells[CellState.DONE] == 100


def test_the_store_itself_compares_tokens_when_a_result_is_written(store: Store) -> None:
    run = store.create_run(name="r", frozen={}, cells=cells(1))
    lease = lease_of(store, "pi")
    claim = store.claim(run, lease)
    assert claim is not None
    with store.database.write() as connection:  # as if expiry had not cancelled the attempt
        connection.exec_driver_sql("UPDATE lease SET token = token + 1")
    for token in (lease.token, lease.token + 1):
        with pytest.raises(InfraError, match="E-LEASE-STALE"):
            store.finish(claim.attempt, token, OK)
    assert store.attempts(run)[0].state is AttemptState.RUNNING


def test_a_bound_unit_does_not_count_as_free_for_another_slot(store: Store) -> None:
    add_devices(store, "pk")
    candidates = {"a": ["pi"], "c": ["pj", "pk"], "b": ["pi", "pj"]}
    plan = [replace(cell, candidates=candidates[cell.slot]) for cell in cells(3, ["a", "c", "b"])]
    run = store.create_run(name="r", frozen={}, cells=plan)
    order = []
    for unit in ("pi", "pj", "pk"):
        claim = store.claim(run, lease_of(store, unit))
        assert claim is not None
        order.append(claim.cell.slot)
    assert order == ["a", "b", "c"]


def test_a_zombie_is_dead_and_a_process_we_may_not_see_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    me = this_process()
    child = subprocess.Popen(["sleep", "60"])
    start = owner._start(child.pid)
    assert start is not None
    theirs = replace(me, pid=child.pid, pid_start=start)
    assert not owner_is_dead(theirs)
    monkeypatch.setattr(owner, "_start", lambda pid: None)  # /proc mounted with hidepid
    assert not owner_is_dead(theirs)
    monkeypatch.undo()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner_is_dead(theirs)
    child.wait()
    assert owner_is_dead(theirs)
