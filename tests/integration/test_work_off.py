"""The coordinator against real devices on this machine: leases lost, units that fail, spools."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.coordinator import loop as module
from orchestrator.coordinator.jobs import order_for
from orchestrator.coordinator.loop import Stop, work_off
from orchestrator.errors import InfraError
from orchestrator.fanout.hub_job import Order
from orchestrator.fanout.inprocess import InProcess
from orchestrator.queue.expiry import LeaseWatch
from orchestrator.queue.states import AttemptState, CellState, RunState
from orchestrator.reports.progress import PlainProgress
from orchestrator.results.finished import Finished
from orchestrator.run import enqueue, plan
from orchestrator.runs.snapshot import load_run
from orchestrator.staging.stage import here
from orchestrator.store.database import Store, upgrade
from orchestrator.store.farm import farm_id
from orchestrator.store.owner import this_process
from orchestrator.store.records import AttemptInfo, CellInfo, Owner
from tests.support.tiny import Tiny

DATA = Path(__file__).parents[1] / "data"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_S", 0.01)
    monkeypatch.setattr(module, "POLL_S", 0.02)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path / "matrix")


@dataclass
class Line:
    """A queued run, its store, and coordinators for it."""

    store: Store
    run: str
    said: io.StringIO

    def work(self, fan: InProcess, *, owner: Owner | None = None, stop: Stop | None = None) -> None:
        frozen = load_run(self.store.frozen(self.run))
        progress = PlainProgress(self.said)
        progress.start(len(self.cells()))
        work_off(
            self.store, fan, self.run, frozen, progress, stop or Stop(), owner or this_process()
        )

    def cells(self) -> list[CellInfo]:
        return self.store.cells(self.run)

    def attempts(self, cell: str | None = None) -> list[AttemptInfo]:
        return [a for a in self.store.attempts(self.run) if cell in (None, a.cell)]

    def state(self) -> RunState:
        return self.store.run(self.run).state

    def finished_once(self) -> None:
        """Every cell is ok by exactly one result, and nobody holds a device."""
        assert self.state() is RunState.DONE
        for cell in self.cells():
            ok = [a.id for a in self.attempts(cell.id) if a.state is AttemptState.OK]
            assert (cell.outcome, ok) == (AttemptState.OK, [cell.attempt])
        assert self.store.leases() == []


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Callable[[Tiny], Line]]:
    with Store.open(tmp_path / "store") as store:

        def queued(tiny: Tiny) -> Line:
            return Line(store, enqueue(store, plan(tiny.write(), []), here), io.StringIO())

        yield queued


@pytest.fixture
def fan(tmp_path: Path) -> Iterator[InProcess]:
    made = InProcess(tmp_path / "store" / "spool")
    yield made
    made.close()


def refuse_once(fan: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is gone when the first order is sent, and back for the next."""
    honest, refusals = fan.run, [InfraError("E-HUB-LOST", "hub gone")]

    def run(order: Order) -> Future[Finished]:
        if refusals:
            raise refusals.pop()
        return honest(order)

    monkeypatch.setattr(fan, "run", run)


def elsewhere(owner: Owner) -> Owner:
    """The same coordinator as a process of another host: nobody here can tell whether it lives."""
    return replace(owner, host="another-host")


def dead(owner: Owner) -> Owner:
    """A coordinator of this host whose process has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return replace(owner, pid=process.pid, pid_start=1)


# Leases --------------------------------------------------------------------------------------


class Stopped(InProcess):
    """A coordinator under SIGSTOP, as far as others see: orders go out, answers are held back.

    ``held`` is set once there is one; it is given on when ``go`` is set.
    """

    def __init__(self, spool: Path) -> None:
        super().__init__(spool)
        self.held, self.go = threading.Event(), threading.Event()

    def run(self, order: Order) -> Future[Finished]:
        inner, outer = super().run(order), Future[Finished]()

        def pass_on() -> None:
            answer = inner.result()
            self.held.set()
            self.go.wait(30)
            outer.set_result(answer)

        threading.Thread(target=pass_on, daemon=True).start()
        return outer


def test_a_coordinator_that_lost_its_lease_is_refused_and_the_cell_counts_once(
    tiny: Tiny,
    line: Callable[[Tiny], Line],
    fan: InProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 3600.0)
    monkeypatch.setattr(module, "LeaseWatch", lambda: LeaseWatch(patience=0.5))
    queued = line(tiny)
    stopped = Stopped(tmp_path / "other spool")
    sleeper = threading.Thread(
        target=queued.work, args=(stopped,), kwargs={"owner": elsewhere(this_process())}
    )
    sleeper.start()
    assert stopped.held.wait(20)
    (first,) = queued.attempts()
    assert (first.state, first.token) == (AttemptState.RUNNING, 1)

    monkeypatch.setattr(module, "HEARTBEAT_S", 0.1)  # of the one that starts now
    queued.work(fan)
    assert "its coordinator is gone, 1 cell(s) wait again" in queued.said.getvalue()
    queued.finished_once()
    counted = queued.attempts()

    stopped.go.set()
    sleeper.join(20)
    stopped.close()
    assert not sleeper.is_alive()
    assert "[E-LEASE-STALE]" in queued.said.getvalue()
    queued.finished_once()
    assert queued.attempts() == counted, "nothing of the late answer was written"
    assert [(a.state, a.error_id) for a in counted] == [
        (AttemptState.CANCELLED, "E-COORDINATOR-LOST"),
        (AttemptState.OK, None),
    ]
    assert [a.token for a in counted] == [1, 2]


def test_a_worker_that_was_fenced_off_has_its_running_cell_refused(
    tiny: Tiny,
    line: Callable[[Tiny], Line],
    fan: InProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The device itself refuses the old token, in the middle of the cell."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 3600.0)
    monkeypatch.setattr(module, "LeaseWatch", lambda: LeaseWatch(patience=0.5))
    tiny.repeat(20_000)
    queued = line(tiny)
    stopped = Stopped(tmp_path / "other spool")
    stopped.go.set()
    answers: list[Finished] = []
    monkeypatch.setattr(stopped, "forget", lambda ids: answers.extend(map(stopped.redeliver, ids)))
    sleeper = threading.Thread(
        target=queued.work, args=(stopped,), kwargs={"owner": elsewhere(this_process())}
    )
    sleeper.start()
    wait_for(lambda: any(tiny.root().glob("out/*/*")))
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.1)  # of the one that starts now
    queued.work(fan)
    sleeper.join(30)
    stopped.close()
    queued.finished_once()
    late = [a for a in answers if a.token == 1]
    assert [a.failure.id for a in late if a.failure] == ["E-LEASE-STALE"]


def test_a_living_coordinator_keeps_its_lease(
    tiny: Tiny,
    line: Callable[[Tiny], Line],
    fan: InProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(module, "LeaseWatch", lambda: LeaseWatch(patience=1.0))
    queued = line(tiny)
    slow = Stopped(tmp_path / "other spool")
    worker = threading.Thread(
        target=queued.work, args=(slow,), kwargs={"owner": elsewhere(this_process())}
    )
    worker.start()
    assert slow.held.wait(20)
    other = threading.Thread(target=queued.work, args=(fan,))
    other.start()
    time.sleep(2.5)
    assert [lease.token for lease in queued.store.leases()] == [1]
    slow.go.set()
    worker.join(20)
    other.join(20)
    slow.close()
    queued.finished_once()
    assert len(queued.attempts()) == 1


def test_a_dead_coordinator_of_this_host_is_not_waited_for(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess
) -> None:
    queued = line(tiny)
    lease = queued.store.acquire_lease("bench", dead(this_process()))
    assert lease is not None
    assert queued.store.claim(queued.run, lease) is not None
    began = time.monotonic()
    queued.work(fan)
    assert time.monotonic() - began < 15
    queued.finished_once()
    assert [a.state for a in queued.attempts()] == [AttemptState.CANCELLED, AttemptState.OK]


def test_a_dead_coordinators_lease_is_freed_where_nothing_waits(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess
) -> None:
    queued = line(tiny)
    queued.work(fan)
    assert queued.store.acquire_lease("bench", dead(this_process())) is not None
    queued.work(fan)
    queued.finished_once()


# Units that fail -----------------------------------------------------------------------------

DROPS = {"kind": "drop", "on": "start", "times": None}


def of_class(tiny: Tiny, *devices: dict[str, Any], count: int = 1) -> None:
    tiny.devices = [{**device, "class": "pi"} for device in devices]
    tiny.matrix["devices"] = [{"class": "pi", "count": count}]
    tiny.matrix["conditions"] = ["clean", "repeat:2", "repeat:3", "repeat:4"]
    tiny.policy["reference"] = [{"device": "good", "runtime": "ort"}]


def test_a_slot_moves_to_another_unit(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess
) -> None:
    of_class(tiny, tiny.fake("bad", DROPS), tiny.device("good"))
    queued = line(tiny)
    # The bad one comes first: it has the slot before the good one asks.
    good = queued.store.acquire_lease("good", this_process())
    assert good is not None
    failed = threading.Event()

    def release() -> None:
        failed.wait(20)
        queued.store.release(good)

    threading.Thread(target=release).start()
    stream = Watching(r"bad given up; its cells wait for another unit", failed)
    queued.said = stream
    queued.work(fan)
    queued.finished_once()
    assert {c.unit for c in queued.cells()} == {"good"}
    on_bad = [a for a in queued.attempts() if a.device == "bad"]
    assert [(a.state, a.error_id) for a in on_bad] == [(AttemptState.INFRA_ERROR, "E-LINK")] * 3


class Watching(io.StringIO):
    """Sets an event when a line is said."""

    def __init__(self, pattern: str, event: threading.Event) -> None:
        super().__init__()
        self._pattern, self._event = pattern, event

    def write(self, text: str) -> int:
        if re.search(self._pattern, text):
            self._event.set()
        return super().write(text)


def test_two_slots_and_only_one_good_unit(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess
) -> None:
    """The slot left without a unit is closed with the reason; nobody waits for hours."""
    of_class(tiny, tiny.fake("bad", DROPS), tiny.device("good"), count=2)
    queued = line(tiny)
    queued.work(fan)
    assert queued.state() is RunState.DONE
    by_unit: dict[str | None, list[CellInfo]] = {}
    for cell in queued.cells():
        by_unit.setdefault(cell.unit, []).append(cell)
    assert [c.outcome for c in by_unit.pop("good")] == [AttemptState.OK] * 4
    (orphans,) = by_unit.values()
    assert [c.outcome for c in orphans] == [AttemptState.INFRA_ERROR] * 4
    for cell in orphans:
        last = queued.attempts(cell.id)[-1]
        assert (last.id, last.error_id) == (cell.attempt, "E-LINK")
        assert (last.error or "").startswith("device given up: the link to bad is down")
    assert queued.store.leases() == []


def test_a_unit_that_is_another_one_is_given_up_at_once_and_its_lease_given_back(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess
) -> None:
    tiny.matrix["conditions"] = ["clean", "repeat:2"]
    shown = tiny.serial("1000000a")
    good = line(tiny)
    good.work(fan)
    good.finished_once()
    shown.write_text("1000000b")
    bad = line(tiny)
    bad.work(fan)
    assert bad.state() is RunState.DONE
    assert bad.store.leases() == []
    assert {c.outcome for c in bad.cells()} == {AttemptState.INFRA_ERROR}
    told = [a for a in bad.attempts() if "given up" not in (a.error or "")]
    assert [a.error_id for a in told] == ["E-DEVICE-IDENTITY"], "tried again, or on every cell"
    assert "its serial is 1000000b, not 1000000a" in (told[0].error or "")


def test_every_unit_of_a_class_fails(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess
) -> None:
    of_class(tiny, tiny.fake("bad", DROPS), tiny.fake("worse", DROPS))
    queued = line(tiny)
    queued.work(fan)
    assert {(c.state, c.outcome) for c in queued.cells()} == {
        (CellState.DONE, AttemptState.INFRA_ERROR)
    }
    assert queued.state() is RunState.DONE


@pytest.mark.parametrize(
    ("fault", "outcome", "error"),
    [
        ({"kind": "drop", "on": "push", "after": 1}, "ok", "E-LINK"),
        ({"kind": "drop", "on": "read", "after": 4}, "ok", "E-LINK"),
        ({"kind": "corrupt", "on": "push", "after": 1}, "ok", "E-CACHE-HASH"),
        ({"kind": "garbage", "on": "read", "after": 1, "times": 20}, "ok", "E-WORKER-GARBAGE"),
        ({"kind": "huge_line", "on": "read", "after": 3}, "ok", "E-WORKER-GARBAGE"),
        ({"kind": "stall", "on": "read", "after": 5}, "ok", "E-LINK"),
        ({"kind": "stall", "on": "read", "after": 5, "times": None}, "timeout", "E-SILENCE"),
        ({"kind": "disk_full", "on": "push", "after": 1}, "infra_error", "E-DISK-FULL"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_one_fault_among_many_cells(
    tiny: Tiny,
    line: Callable[[Tiny], Line],
    fan: InProcess,
    fault: dict[str, Any],
    outcome: str,
    error: str,
) -> None:
    """Retried where that helps; the other device's results are all there, and equal."""
    tiny.devices = [tiny.fake("bench", fault), tiny.device("sound")]
    tiny.matrix["conditions"] = ["clean", "repeat:3"]
    tiny.matrix["timeouts"] = {"silence": "2s"}
    queued = line(tiny)
    queued.work(fan)
    found = {c.id: c for c in queued.cells()}
    assert {c.state for c in found.values()} == {CellState.DONE}
    errors = [a.error_id for a in queued.attempts() if a.error_id]
    assert error in errors
    assert set(errors) == {error}
    hurt = {c.outcome for c in found.values() if c.unit == "bench"}
    assert hurt <= {AttemptState.OK, AttemptState(outcome)}
    assert AttemptState(outcome) in hurt
    assert {c.outcome for c in found.values() if c.unit == "sound"} == {AttemptState.OK}
    for cell in found.values():
        if cell.unit == "bench" and cell.outcome is AttemptState.OK:
            twin = found[cell.id.replace("bench", "sound")]
            assert outputs(queued, cell) == outputs(queued, twin) != {}


def outputs(queued: Line, cell: CellInfo) -> dict[str, str]:
    (attempt,) = (a for a in queued.attempts(cell.id) if a.id == cell.attempt)
    return {r: b.sha256 for r, b in attempt.artefacts.items() if r.startswith("output-")}


# Spool ---------------------------------------------------------------------------------------


def spooled(queued: Line, fan: InProcess) -> str:
    """An attempt that a hub finished for a coordinator which died before writing it down."""
    frozen = load_run(queued.store.frozen(queued.run))
    lease = queued.store.acquire_lease("bench", dead(this_process()))
    assert lease is not None
    claim = queued.store.claim(queued.run, lease)
    assert claim is not None
    farm = farm_id(queued.store.database.path.parent)
    order = order_for(claim, frozen, queued.store.artefacts, farm, lease.shown)
    finished = fan.run(order).result()
    assert finished.failure is None
    fan.let_go("bench")
    return claim.attempt


def test_what_was_spooled_and_never_written_down_counts_once(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess
) -> None:
    queued = line(tiny)
    attempt = spooled(queued, fan)
    queued.work(fan)
    queued.finished_once()
    assert [a.id for a in queued.attempts()] == [attempt], "it was not run again"
    assert f"attempt {attempt} redelivered by its hub" in queued.said.getvalue()
    assert fan.spooled() == []


def test_what_was_written_down_and_never_forgotten_counts_once(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.matrix["conditions"] = ["clean", "repeat:2"]
    queued = line(tiny)
    stop = Stop()
    with monkeypatch.context() as patch:
        patch.setattr(fan, "forget", lambda ids: stop.draining.set())
        queued.work(fan, stop=stop)
    assert queued.state() is RunState.INTERRUPTED
    assert len(fan.spooled()) == 1
    queued.work(fan)
    queued.finished_once()
    assert len(queued.attempts()) == 2
    assert fan.spooled() == []


def test_what_was_spooled_too_late_is_run_again(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess
) -> None:
    """Its lease has been taken away: somebody else may be running the cell."""
    queued = line(tiny)
    attempt = spooled(queued, fan)
    (lease,) = queued.store.leases()
    assert queued.store.expire(lease) == 1
    queued.work(fan)
    queued.finished_once()
    assert [a.id == attempt for a in queued.attempts()] == [True, False]
    assert fan.spooled() == []


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("spoil", "id"),
    [
        (lambda data: b"", "E-RESULT-HASH"),
        (lambda data: b"\x80\x04", "E-RESULT-HASH"),
        (lambda data: data[:-1], "E-RESULT-HASH"),
        (flipped, "E-RESULT-HASH"),
        (lambda data: data.replace(b"attempt/1", b"attempt/7", 1), "E-RESULT-VERSION"),
    ],
    ids=["power-cut", "a pickle cut short", "cut short", "flipped bit", "another version"],
)
def test_a_spool_that_cannot_be_read_is_named_and_run_again(
    tiny: Tiny,
    line: Callable[[Tiny], Line],
    fan: InProcess,
    tmp_path: Path,
    spoil: Callable[[bytes], bytes],
    id: str,
) -> None:
    queued = line(tiny)
    attempt = spooled(queued, fan)
    path = tmp_path / "store" / "spool" / f"{attempt}.attempt"
    path.write_bytes(spoil(path.read_bytes()))
    queued.work(fan)
    queued.finished_once()
    assert [(a.state, a.error_id) for a in queued.attempts()] == [
        (AttemptState.INFRA_ERROR, id),
        (AttemptState.OK, None),
    ]
    assert f"[{id}]" in queued.said.getvalue()
    assert fan.spooled() == []


def test_what_an_older_assay_spooled_is_collected(tmp_path: Path) -> None:
    """A store of df4554a whose coordinator died before it wrote its one answer down."""
    with tarfile.open(DATA / "df4554a" / "spooled.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    upgrade(tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        (run,) = store.runs()
        queued = Line(store, run.id, io.StringIO())
        made = InProcess(tmp_path / "store" / "spool")
        (attempt,) = made.spooled()
        queued.work(made)
        made.close()
        (cell,) = queued.cells()
        assert (queued.state(), cell.outcome, cell.attempt) == (
            RunState.DONE,
            AttemptState.OK,
            attempt,
        )
        assert f"attempt {attempt} redelivered by its hub" in queued.said.getvalue()
        assert sorted(outputs(queued, cell)) == ["output-0"]
        assert made.spooled() == []


def test_another_coordinator_is_faster_with_the_spool(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan, "spooled", lambda: ["seen-but-gone"])
    queued = line(tiny)
    queued.work(fan)
    queued.finished_once()


# Ends ----------------------------------------------------------------------------------------


def test_two_coordinators_and_the_other_one_ends_the_run(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C here, while the other one has just set the run to done."""
    queued = line(tiny)
    stop = Stop()
    honest = fan.let_go

    def let_go(device: str) -> None:
        honest(device)
        stop.draining.set()
        queued.store.set_run_state(queued.run, RunState.DONE)

    monkeypatch.setattr(fan, "let_go", let_go)
    queued.work(fan, stop=stop)
    queued.finished_once()


def test_ctrl_c_twice_after_the_lease_was_lost(
    tiny: Tiny, line: Callable[[Tiny], Line], tmp_path: Path
) -> None:
    queued, stop = line(tiny), Stop()
    slow = Stopped(tmp_path / "store" / "spool")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            queued.work(slow, stop=stop, owner=elsewhere(this_process()))
        except BaseException as error:  # noqa: BLE001  checked below
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    assert slow.held.wait(20)
    (lease,) = queued.store.leases()
    assert queued.store.expire(lease) == 1
    stop.draining.set()
    stop.now.set()
    worker.join(20)
    slow.go.set()
    assert failures == []
    assert queued.state() is RunState.INTERRUPTED
    assert [a.state for a in queued.attempts()] == [AttemptState.CANCELLED]


def test_no_device_comes_free(tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess) -> None:
    tiny.matrix["timeouts"] = {"queue": "1s"}
    queued = line(tiny)
    held = queued.store.acquire_lease("bench", this_process())
    assert held is not None
    queued.work(fan)
    (cell,) = queued.cells()
    assert (cell.outcome, queued.state()) == (AttemptState.TIMEOUT, RunState.DONE)
    assert [a.error_id for a in queued.attempts()] == ["E-QUEUE-TIMEOUT"]
    assert [lease.token for lease in queued.store.leases()] == [held.token], "not ours to free"


def test_a_unit_that_rests_is_still_waited_for(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue timeout is no limit to the age of a run, nor to what a failure takes to pass."""
    tiny.matrix["timeouts"] = {"queue": "0.2s"}
    monkeypatch.setattr(module, "REST_S", 1.0)
    refuse_once(fan, monkeypatch)
    queued = line(tiny)
    queued.work(fan)
    queued.finished_once()


def test_a_second_coordinator_leaves_the_cells_of_a_live_one_alone(
    tiny: Tiny, line: Callable[[Tiny], Line], tmp_path: Path
) -> None:
    """However long the first takes for a cell: those that wait for its device are not given up."""
    tiny.matrix["timeouts"] = {"queue": "0.2s"}
    tiny.matrix["conditions"] = ["clean", "repeat:2"]
    queued = line(tiny)
    slow = Stopped(tmp_path / "store" / "spool")
    both = [
        threading.Thread(target=queued.work, args=(slow,), kwargs={"owner": this_process()}),
        threading.Thread(target=queued.work, args=(InProcess(tmp_path / "spool"),)),
    ]
    both[0].start()
    assert slow.held.wait(20)
    both[1].start()
    time.sleep(1.0)  # five queue timeouts
    assert CellState.DONE not in [c.state for c in queued.cells()]
    slow.go.set()
    for coordinator in both:
        coordinator.join(30)
    queued.finished_once()


def test_a_run_that_is_done_but_for_a_cell_is_taken_up_again(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess
) -> None:
    queued = line(tiny)
    queued.store.set_run_state(queued.run, RunState.RUNNING)
    queued.store.set_run_state(queued.run, RunState.DONE)
    queued.work(fan)
    queued.finished_once()


def test_a_bug_in_the_fan_out_gives_devices_back(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(order: Order) -> Future[Finished]:
        raise ZeroDivisionError

    monkeypatch.setattr(fan, "run", broken)
    queued = line(tiny)
    with pytest.raises(ZeroDivisionError):
        queued.work(fan)
    assert queued.state() is RunState.INTERRUPTED
    assert queued.store.leases() == []
    assert [c.state for c in queued.cells()] == [CellState.PENDING]


def test_a_hub_that_cannot_be_sent_to_is_tried_again(
    tiny: Tiny, line: Callable[[Tiny], Line], fan: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_once(fan, monkeypatch)
    queued = line(tiny)
    queued.work(fan)
    queued.finished_once()
    assert [a.error_id for a in queued.attempts()] == ["E-HUB-LOST", None]


def wait_for(true: Callable[[], object], timeout: float = 20.0) -> None:
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
