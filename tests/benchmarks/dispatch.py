"""What one cell costs beside its inference: warm, over SSH on loopback, committed to disk.

Cells are timed inside the coordinator's own loop (work_off): from the end of one cell's commit to
the end of the next one's, so forgetting, claiming, ordering, running, fetching, storing and
committing are all in. Between two cells, the other arms run on connections of their own.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import paramiko

from orchestrator.coordinator.events import NullProgress
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.devices.worker import Worker
from orchestrator.queue.states import AttemptState
from orchestrator.store.artefacts import Artefacts
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from orchestrator.store.records import AttemptRecord
from orchestrator.transports import open_transport
from orchestrator.transports.settings import SshSettings
from tests.benchmarks import farm
from tests.benchmarks.kit import Call, Spread, Table, ratios, scaled

TURNS = 60
WARM = 5
EVERY = 4
"""The slow arms (a process with its imports per job) run in every fourth turn only."""

_ECHO = """\
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
"""
_IMPORT = "import onnxruntime"
AIM_MS, AIM_RATIO = 10.0, 20.0


class Turns(NullProgress):
    """Times the cells of a run, and ``arms`` between them; seconds by name, ``cell`` among them."""

    def __init__(self, arms: dict[str, Call], slow: frozenset[str]) -> None:
        self.taken: dict[str, dict[int, float]] = {name: {} for name in ("cell", *arms)}
        self._arms, self._slow = arms, slow
        self._turn, self._last = -1 - WARM, 0.0

    def cell_finished(
        self, id: str, device: str, outcome: str, seconds: float, note: str = ""
    ) -> None:
        self._note("cell", time.perf_counter() - self._last)
        names = [n for n in self._arms if n not in self._slow or self._turn % EVERY == 0]
        for i in range(len(names)):
            name = names[(self._turn + i) % len(names)]
            begin = time.perf_counter()
            self._arms[name]()
            self._note(name, time.perf_counter() - begin)
        self._turn += 1
        self._last = time.perf_counter()

    def _note(self, name: str, seconds: float) -> None:
        if self._turn >= 0:
            self.taken[name][self._turn] = seconds

    def ms(self, name: str) -> list[float]:
        return scaled(list(self.taken[name].values()), 1e3)

    def paired(self, above: str, below: str) -> tuple[list[float], list[float]]:
        """Milliseconds of both arms in the turns where both ran."""
        both = sorted(self.taken[above].keys() & self.taken[below].keys())
        return tuple(scaled([self.taken[n][t] for t in both], 1e3) for n in (above, below))  # type: ignore[return-value]  # two names, two lists


def run() -> list[Table]:
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        with farm.server(folder / "sshd") as ssh:
            tables = []
            for kind in ("inprocess", "ray"):
                place = folder / kind
                place.mkdir()
                tables.append(_measure(kind, place, ssh.settings(root=str(place / "device"))))
            place = folder / "parts"
            place.mkdir()
            tables.append(_parts(place, ssh.settings(root=str(place / "device"))))
            return tables


def _measure(kind: str, folder: Path, ssh: SshSettings) -> Table:
    cells = TURNS + WARM + 1
    with (
        Store.open(folder / "store") as store,
        farm.executor(kind, folder / "spool") as fan,
        _other_arms(folder, ssh, cells) as arms,
    ):
        turns = Turns(arms, frozenset({"exec true", "exec import"}))
        run_id = farm.submit(store, farm.tiny_matrix(folder, ssh, cells))
        farm.work(store, run_id, fan, turns)
    table = Table(f"dispatch of a warm cell over SSH, executor {kind}", "ms")
    cell = table.add("a cell: tiny model, 1 sample, 4 result files, committed", turns.ms("cell"))
    table.add("a no-op: claim, worker's noop, finish committed", turns.ms("noop committed"))
    table.add("worker's noop, same kind of channel", turns.ms("noop"))
    table.add("echo of a JSON line, bare process", turns.ms("echo"))
    table.add("exec_command of true", turns.ms("exec true"))
    table.add(f"exec_command of python -c '{_IMPORT}'", turns.ms("exec import"))
    above, below = turns.paired("cell", "noop")
    over = Spread.of([a - b for a, b in zip(above, below, strict=True)])
    table.note(f"cell over raw round trip: p50 {over.p50:.1f} ms, p90 {over.p90:.1f} ms")
    above, below = turns.paired("noop committed", "noop")
    none = Spread.of([a - b for a, b in zip(above, below, strict=True)])
    table.note(f"no-op over raw round trip: p50 {none.p50:.1f} ms (aim: {AIM_MS:g} ms)")
    for arm in ("cell", "noop committed"):
        cheaper = Spread.of(ratios(*turns.paired("exec import", arm)))
        table.note(
            f"exec with runtime import over {arm}: {cheaper.p50:.1f}x"
            f" ({cheaper.low:.1f}–{cheaper.high:.1f}), aim {AIM_RATIO:g}x"
        )
    table.note(f"best cell {cell.low:.1f} ms: what it costs when nothing else wants the cores")
    return table


@contextlib.contextmanager
def _other_arms(folder: Path, ssh: SshSettings, turns: int) -> Iterator[dict[str, Call]]:
    apart = ssh.model_copy(update={"root": str(folder / "other device")})
    elsewhere = folder / "other"
    elsewhere.mkdir()
    session = DeviceSession(
        open_transport(apart, device="arms"), device="arms", owner="arms", token=1, limits=Limits()
    )
    with (
        session,
        open_transport(apart, device="echo") as transport,
        _client(ssh) as client,
        Store.open(elsewhere / "store") as store,
    ):
        worker = session.worker(sys.executable)
        echo = transport.start([sys.executable, "-c", _ECHO])
        run_id = farm.submit(store, farm.tiny_matrix(elsewhere, apart, turns))
        lease = store.acquire_lease(farm.DEVICE, this_process())
        assert lease is not None
        record = AttemptRecord(AttemptState.OK, codes_valid=True, timing_valid=True, result={})

        def noop() -> None:
            worker.ask("noop", timeout=30)

        def committed() -> None:
            claim = store.claim(run_id, lease)
            assert claim is not None
            noop()
            store.finish(claim.attempt, lease.token, record)

        def echoed() -> None:
            echo.send(b'{"op":"noop","id":1}')
            if echo.read_line(30) is None:
                raise RuntimeError(echo.stderr_tail())

        def execute(command: str) -> None:
            _, stdout, stderr = client.exec_command(command)
            stdout.read()
            if stdout.channel.recv_exit_status() != 0:
                raise RuntimeError(stderr.read().decode())

        yield {
            "noop committed": committed,
            "noop": noop,
            "echo": echoed,
            "exec true": lambda: execute("true"),
            "exec import": lambda: execute(f"{sys.executable} -c '{_IMPORT}'"),
        }
        echo.close()


@contextlib.contextmanager
def _client(ssh: SshSettings) -> Iterator[paramiko.SSHClient]:
    """Plain paramiko, for what a farm without a worker would do."""
    client = paramiko.SSHClient()
    client.load_host_keys(str(ssh.known_hosts))
    client.connect(
        ssh.host,
        port=ssh.port or 22,
        username=ssh.user,
        key_filename=ssh.key,
        allow_agent=False,
        look_for_keys=False,
    )
    with client:
        yield client


def _parts(folder: Path, ssh: SshSettings) -> Table:
    """The same cell again, with a clock around each step (they nest where it says so)."""
    taken: dict[str, list[float]] = {}
    steps: list[tuple[type[Any], str, str]] = [
        (Store, "claim", "claim (1 commit)"),
        (DeviceSession, "ensure", "is everything in the device's cache?"),
        (Worker, "run", "worker runs the job"),
        (DeviceSession, "run", "worker runs, results fetched, forgotten"),
        (Artefacts, "put_bytes", "one artefact stored"),
        (Store, "upsert_device", "device noted"),
        (Store, "finish", "finish (1 commit)"),
    ]
    with contextlib.ExitStack() as stack:
        for owner, method, label in steps:
            clocked = _clocked(getattr(owner, method), taken.setdefault(label, []))
            stack.enter_context(mock.patch.object(owner, method, clocked))
        store = stack.enter_context(Store.open(folder / "store"))
        fan = stack.enter_context(farm.executor("inprocess", folder / "spool"))
        run_id = farm.submit(store, farm.tiny_matrix(folder, ssh, TURNS // 2))
        for values in taken.values():
            values.clear()  # staging stores artefacts too
        farm.work(store, run_id, fan)
    table = Table("where a cell's time goes, executor inprocess", "ms")
    for _, _, label in steps:
        if values := taken[label][WARM:]:
            table.add(label, scaled(values, 1e3))
    return table


def _clocked(function: Any, into: list[float]) -> Any:
    def timed(*args: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*args, **named)
        finally:
            into.append(time.perf_counter() - begin)

    return timed
