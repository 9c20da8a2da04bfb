"""Queue → lease → fan-out → results: work the pending cells of one run off.

Any number of coordinators may do this for one run at the same time: leases and claims are
decided by the store, in one short transaction each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace

from orchestrator.coordinator.events import Progress
from orchestrator.coordinator.expiry import expire_dead
from orchestrator.coordinator.jobs import asked_for, order_for, record
from orchestrator.errors import AssayError, InfraError
from orchestrator.fanout.executor import Executor
from orchestrator.matrix.environment import clock_note, emulated
from orchestrator.queue.expiry import LeaseWatch
from orchestrator.queue.placement import Prefer
from orchestrator.queue.states import AttemptState, CellState, RunState
from orchestrator.results.door import admitted
from orchestrator.results.finished import Failure, Finished, unexpected
from orchestrator.runs.run import Run
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.store.artefacts import put_and_commit
from orchestrator.store.database import Store
from orchestrator.store.farm import farm_id
from orchestrator.store.records import AttemptRecord, CellInfo, Claim, Finish, Lease, Owner

HEARTBEAT_S = 5.0
POLL_S = 0.5
GIVE_UP_AFTER = 3
"""Infrastructure failures in a row after which a device gets no more cells in this run."""
CATCH_UPS = 3
"""So often in a run a device may remember a later lease than the store's."""
REST_S = 1.0
"""Pause after a device's first failure, three times as long after the next: a board may reboot."""

_SHOWN = ("machine", "kernel", "os", "hardware", "board", "fingerprint", "soc")
"""Of what a worker says of its device, that by which the farm knows the unit."""

More = Callable[[], int]
NOT_DELIVERED = frozenset({"E-LEASE-STALE", "E-ATTEMPT-UNKNOWN", "E-ATTEMPT-FINAL", "E-HUB-SPOOL"})


@dataclass
class _Unit:
    """One device of the run: its lease while we hold it, and how it has been behaving.

    ``twin``: the name under which the farm was driving this very device; it is waited for.
    ``caught_up``: how often the store had to go on above what the device remembered.
    """

    name: str
    lease: Lease | None = None
    claim: Claim | None = None
    prefer: Prefer | None = None
    failures: int = 0
    rest_until: float = 0.0
    given_up: Failure | None = None
    caught_up: int = 0
    twin: str | None = None


@dataclass
class Stop:
    """Set by Ctrl-C: ``draining`` claims no more, ``now`` does not wait for running cells.

    Set by the run: ``worked_off`` once no cell is left to be stopped.
    """

    draining: threading.Event = field(default_factory=threading.Event)
    now: threading.Event = field(default_factory=threading.Event)
    worked_off: threading.Event = field(default_factory=threading.Event)


def work_off(
    store: Store,
    fan: Executor,
    run_id: str,
    frozen: FrozenRun,
    progress: Progress,
    stop: Stop,
    owner: Owner,
    more: More = lambda: 0,
) -> None:
    """Return when every cell of the run is done or packed, or when told to stop.

    ``more`` queues what the answers so far call for and returns how much; it is asked after every
    answer, by every coordinator of the run, so what it does must be safe to repeat.
    """
    _Coordinator(store, fan, run_id, frozen, progress, stop, owner, more).work_off()


class _Coordinator:
    def __init__(
        self,
        store: Store,
        fan: Executor,
        run_id: str,
        frozen: FrozenRun,
        progress: Progress,
        stop: Stop,
        owner: Owner,
        more: More,
    ) -> None:
        self._store, self._fan, self._run, self._frozen = store, fan, run_id, frozen
        self._progress, self._stop, self._owner, self._more = progress, stop, owner, more
        self._units = {d: _Unit(d) for d in frozen.devices}
        self._flying: dict[Future[Finished], _Unit] = {}
        self._watch = LeaseWatch()
        self._clocks: set[str] = set()
        self._ended = threading.Event()
        self._farm = farm_id(store.database.path.parent)
        # The queue timeout counts from the last sign that the run moves.
        self._moved = time.monotonic()
        self._stood: list[tuple[str, CellState]] = []

    def work_off(self) -> None:
        if self._store.run(self._run).state is not RunState.DONE or self._open_cells():
            self._work_off()
        # What a killed coordinator held, also where no cell of ours waits for it.
        self._expire_dead()

    def _work_off(self) -> None:
        self._move_run(RunState.RUNNING)
        moved = self._store.settle()
        if moved:
            self._progress.message(moved)
        heart = threading.Thread(target=self._beat, name="leases", daemon=True)
        heart.start()
        state = RunState.INTERRUPTED
        try:
            self._collect_spool()
            while self._step():
                pass
            # Cells that left as an archive are not done, and nobody waits here until they are.
            if not self._stop.draining.is_set() and not self._store.packs(self._run):
                state = RunState.DONE
        finally:
            self._ended.set()
            heart.join()
            for unit in self._units.values():
                self._let_go(unit)
            self._move_run(state)

    def _move_run(self, state: RunState) -> None:
        try:
            self._store.set_run_state(self._run, state)
        except InfraError:
            # Another coordinator may have been first to end the run.
            if self._store.run(self._run).state is not RunState.DONE:
                raise

    def _step(self) -> bool:
        """One turn: give idle units work, wait for one answer. False when there is nothing left."""
        if not self._stop.draining.is_set():
            self._feed_idle()
        if self._flying:
            self._moved = time.monotonic()
            done, _ = wait(self._flying, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                self._land(future, self._flying.pop(future))
            if done:
                self._more()
            if self._stop.now.is_set():
                self._abandon()
            return True
        return not self._stop.draining.is_set() and self._wait_for_others()

    def _feed_idle(self) -> None:
        """Lease idle units that a pending cell waits for; claim and send out their next cell."""
        now = time.monotonic()
        idle = [
            u
            for u in self._units.values()
            if u.claim is None and u.given_up is None and now >= u.rest_until
        ]
        if not idle:
            return
        wanted: set[str] | None = None
        for unit in idle:
            if unit.lease is None:
                wanted = self._wanted() if wanted is None else wanted
                if unit.twin is not None and not self._is_held(unit.twin):
                    unit.twin = None
                if unit.name in wanted and unit.twin is None:
                    unit.lease = self._store.acquire_lease(unit.name, self._owner)
            if unit.lease is not None:
                self._feed(unit, unit.lease)

    def _feed(self, unit: _Unit, lease: Lease) -> None:
        try:
            unit.claim = self._store.claim(self._run, lease, prefer=unit.prefer)
        except InfraError as error:
            if error.id != "E-LEASE-STALE":
                raise
            unit.lease = None
            return
        if unit.claim is None:
            self._let_go(unit)
            return
        self._progress.cell_started(unit.claim.cell.id, unit.name)
        order = order_for(unit.claim, self._frozen, self._store.artefacts, self._farm, lease.shown)
        try:
            self._flying[self._fan.run(order)] = unit
        except AssayError as error:
            self._finish(unit, unit.claim, _failed(unit.claim, error))

    def _wanted(self) -> set[str]:
        """Units that some pending cell may go to."""
        found: set[str] = set()
        for cell in self._store.cells(self._run):
            if cell.state is CellState.PENDING:
                found.update([cell.unit] if cell.unit else self._frozen.slots[cell.slot])
        return found

    def _land(self, future: Future[Finished], unit: _Unit) -> None:
        claim = unit.claim
        assert claim is not None
        try:
            finished = future.result()
        except AssayError as error:
            finished = _failed(claim, error)
        except Exception as error:  # noqa: BLE001  as in Hub.run: nothing of one cell ends the run
            finished = _failed(claim, unexpected(error, unit.name))
        self._finish(unit, claim, finished)
        self._fan.forget([finished.attempt])

    def _finish(self, unit: _Unit, claim: Claim, finished: Finished) -> None:
        """Write one attempt down. A lease lost meanwhile means that somebody else has the cell."""
        unit.claim = None
        unit.prefer = Prefer(claim.cell.env_key, claim.cell.model)
        finished = admitted(finished, asked_for(claim, self._frozen))
        try:
            settled = self._settled(unit, finished)
            if settled is None:
                return
            finished, written = self._write(settled)
        except InfraError as error:
            if error.id != "E-LEASE-STALE":
                raise
            self._progress.message(str(error))
            unit.lease = None
            return
        failure = finished.failure
        report = (
            self._progress.cell_finished
            if written.cell is CellState.DONE
            else self._progress.cell_waits
        )
        report(
            claim.cell.id,
            unit.name,
            finished.outcome,
            finished.ended_unix - finished.started_unix,
            failure.text if failure else "",
        )
        if failure is None or failure.outcome != "infra_error":
            unit.failures = 0
            return
        unit.failures += 1
        unit.rest_until = time.monotonic() + REST_S * 3.0 ** (unit.failures - 1)
        if unit.failures >= GIVE_UP_AFTER or not failure.retryable:
            self._give_up(unit, failure)

    def _settled(self, unit: _Unit, finished: Finished) -> Finished | None:
        """What to write down; None where the device's fence wants another try, so the cell waits.

        Raises InfraError E-LEASE-STALE.
        """
        refusal, lease = finished.failure and finished.failure.refusal, unit.lease
        if not refusal or lease is None:
            return finished
        if refusal.remembered is not None and unit.caught_up < CATCH_UPS:
            unit.caught_up += 1
            try:
                unit.lease, note = self._store.catch_up(lease, refusal.remembered)
            except InfraError as error:
                if error.id != "E-STORE-COPY":
                    raise
                return replace(finished, failure=Failure.of(error))
            if note:
                self._progress.message(note)
            return None
        if refusal.holder is None or not self._is_held(refusal.holder):
            return finished
        unit.twin = refusal.holder
        waits = f"it is the device that is in use as {unit.twin}"
        self._progress.message(f"{unit.name}: {waits}, and waits for its turn")
        self._store.cancel_running(lease, waits)
        self._let_go(unit)
        return None

    def _is_held(self, device: str) -> bool:
        return any(lease.device == device for lease in self._store.leases())

    def _write(self, finished: Finished) -> tuple[Finished, Finish]:
        """Store what came back, and return what was stored and what became of the cell.

        An answer that cannot be stored is an error of its attempt, not of the run.
        """

        def both() -> Finish:
            kept = record(finished, self._store.artefacts)
            return self._store.finish(finished.attempt, finished.token, kept)

        try:
            self._know(finished.device, finished)
            return finished, put_and_commit(both)
        except InfraError as error:
            if error.id != "E-STORE-VALUE" or finished.failure is not None:
                raise
            failure = Failure.of(error)
        return self._write(replace(finished, failure=failure, result=None, files={}))

    def _know(self, device: str, finished: Finished) -> None:
        """What the unit says of itself goes into the table of devices."""
        if finished.result is None:
            return
        clock = clock_note(finished.result.get("clock_offset_s"))
        if clock and device not in self._clocks:
            self._clocks.add(device)
            self._progress.message(f"{device}: {clock}")
        environment = finished.result["environment"]
        identity = {k: environment.get(k) for k in _SHOWN if k in environment}
        self._store.upsert_device(
            device, self._frozen.class_of(device, device), emulated(environment), identity
        )

    def _give_up(self, unit: _Unit, failure: Failure) -> None:
        """Give this unit no more cells in this run.

        Another unit may take its slot if nothing was answered yet.
        """
        unit.given_up = failure
        self._let_go(unit)
        self._store.unit_lost(self._run, unit.name)
        if not self._close_orphans():
            self._progress.message(f"{unit.name} given up; its cells wait for another unit")

    def _close_orphans(self) -> int:
        """End the pending cells whose slot no unit is left for, with the reason; how many."""
        reasons = {u.name: u.given_up for u in self._units.values() if u.given_up}
        if not reasons:
            return 0
        cells = self._store.cells(self._run)
        bound = {c.slot: c.unit for c in cells if c.unit is not None}
        closed = 0
        for slot in {c.slot for c in cells if c.state is CellState.PENDING}:
            # A unit serves one slot of a run, so one that has another slot is no hope for this.
            taken = {unit for other, unit in bound.items() if other != slot}
            units = [bound[slot]] if slot in bound else self._frozen.slots[slot]
            gone = [u for u in units if u in reasons]
            if gone and all(u in reasons or u in taken for u in units):
                closed += self._close(slot, gone[-1], reasons[gone[-1]], cells)
        return closed

    def _close(self, slot: str, unit: str, failure: Failure, cells: Sequence[CellInfo]) -> int:
        waiting = [c.id for c in cells if c.slot == slot and c.state is CellState.PENDING]
        ended = AttemptRecord(
            AttemptState.INFRA_ERROR,
            error_id=failure.id,
            error=f"device given up: {failure.text}",
        )
        self._store.close_pending(self._run, waiting, ended)
        for cell in waiting:
            self._progress.cell_finished(cell, unit, "infra_error", 0.0, "device given up")
        return len(waiting)

    def _collect_spool(self) -> None:
        """Attempts that a hub finished but no coordinator wrote down: redelivered by ID."""
        for attempt in self._fan.spooled():
            try:
                self._write(self._redelivered(attempt))
                self._progress.message(f"attempt {attempt} redelivered by its hub")
            except InfraError as error:
                # Counted already, or run again; or (E-HUB-SPOOL) another coordinator was faster.
                if error.id not in NOT_DELIVERED:
                    raise
            self._fan.forget([attempt])

    def _redelivered(self, attempt: str) -> Finished:
        """What a hub kept, once it has passed the door; what is damaged is that attempt's failure.

        Raises InfraError E-HUB-SPOOL, E-ATTEMPT-UNKNOWN.
        """
        claim = self._store.claim_of(attempt)
        try:
            finished = self._fan.redeliver(attempt)
        except InfraError as error:
            if not error.id.startswith("E-RESULT-"):
                raise
            self._progress.message(f"attempt {attempt}: {error}")
            return _failed(claim, error)
        frozen = Run(self._store, claim.cell.run).frozen
        return admitted(finished, asked_for(claim, frozen))

    def _wait_for_others(self) -> bool:
        """Nothing of ours is running. Others may hold units or cells we need, alive or dead."""
        open_cells = self._open_cells()
        if not open_cells:
            # The last answer may have been another coordinator's, who may be dead by now.
            self._more()
            return bool(self._open_cells())
        if self._waited(open_cells) >= self._frozen.matrix.timeouts.queue:
            late = AttemptRecord(
                AttemptState.TIMEOUT,
                error_id="E-QUEUE-TIMEOUT",
                error="no device came free in time",
            )
            self._store.close_pending(self._run, [c.id for c in open_cells], late)
        elif not (self._close_orphans() or self._expire_dead()):
            self._stop.draining.wait(POLL_S)
        return True

    def _waited(self, open_cells: Sequence[CellInfo]) -> float:
        """Seconds for which no cell of the run has run or changed and no unit of ours rested.

        What runs has timeouts of its own, and a coordinator that dies with it is expired.
        """
        now, stand = time.monotonic(), [(c.id, c.state) for c in open_cells]
        running = any(c.state is CellState.RUNNING for c in open_cells)
        resting = any(u.given_up is None and u.rest_until > now for u in self._units.values())
        if running or resting or stand != self._stood:
            self._moved, self._stood = now, stand
        return now - self._moved

    def _open_cells(self) -> list[CellInfo]:
        """Cells that are neither done nor packed."""
        packed = {cell for pack in self._store.packs(self._run) for cell in pack.out.values()}
        cells = self._store.cells(self._run)
        return [c for c in cells if c.state is not CellState.DONE and c.id not in packed]

    def _expire_dead(self) -> int:
        twins = {unit.twin for unit in self._units.values() if unit.twin is not None}
        devices = twins | set(self._units)
        return expire_dead(self._store, self._watch, devices, self._progress.message)

    def _abandon(self) -> None:
        """Second Ctrl-C: running attempts are cancelled, their cells wait for `assay resume`."""
        for unit in self._flying.values():
            if unit.lease is not None:
                self._cancel(unit.lease)
        self._flying.clear()
        self._fan.abort()

    def _cancel(self, lease: Lease) -> None:
        try:
            self._store.cancel_running(lease)
        except InfraError as error:
            if error.id != "E-LEASE-STALE":  # then whoever took it has cancelled them
                raise

    def _let_go(self, unit: _Unit) -> None:
        lease, unit.lease = unit.lease, None
        if lease is None:
            return
        if not self._stop.now.is_set():
            self._fan.let_go(unit.name)
        self._store.release(lease)

    def _beat(self) -> None:
        """Renew what we hold. A lease that was taken away shows when its result is refused."""
        while not self._ended.wait(HEARTBEAT_S):
            held = [lease for u in self._units.values() if (lease := u.lease) is not None]
            try:
                self._store.renew(held)
            except AssayError as error:
                self._progress.message(str(error))


def _failed(claim: Claim, error: AssayError) -> Finished:
    now = time.time()
    return Finished(claim.attempt, claim.device, claim.token, now, now, Failure.of(error))
