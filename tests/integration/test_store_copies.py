"""Stores that are restored, moved and copied, and boards with two names: real runs on a real board.

Every run works its cells off with the worker that a run uses, on one folder of this machine.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from device_worker import wire
from orchestrator.coordinator import loop as module
from orchestrator.coordinator.loop import Stop, work_off
from orchestrator.coordinator.reservations import Reservations
from orchestrator.coordinator.visit import visit
from orchestrator.devices.session import DeviceSession
from orchestrator.errors import InfraError
from orchestrator.fanout.inprocess import InProcess
from orchestrator.matrix.inventory import Device
from orchestrator.matrix.loader import load_inventories
from orchestrator.queue.states import AttemptState
from orchestrator.reports.progress import PlainProgress
from orchestrator.results.finished import Finished
from orchestrator.run import enqueue, plan
from orchestrator.runs.snapshot import load_run
from orchestrator.staging.stage import here
from orchestrator.store.database import Store, upgrade
from orchestrator.store.owner import this_process
from orchestrator.store.records import AttemptInfo
from tests.support.cli import assay
from tests.support.tiny import Tiny

pytestmark = pytest.mark.timeout(300)

OLD = Path(__file__).parents[1] / "data" / "df4554a"


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_S", 0.01)
    monkeypatch.setattr(module, "POLL_S", 0.02)


@dataclass(frozen=True)
class Ran:
    attempts: list[AttemptInfo]
    said: str

    @property
    def counted(self) -> list[AttemptInfo]:
        return [a for a in self.attempts if a.state is not AttemptState.CANCELLED]

    def fine(self) -> Ran:
        assert [(a.state, a.error) for a in self.counted] == [(AttemptState.OK, None)], self.said
        return self

    def refused(self, *parts: str) -> Ran:
        (attempt,) = self.counted
        assert (attempt.state, attempt.error_id) == (AttemptState.INFRA_ERROR, "E-STORE-COPY")
        assert attempt.error is not None
        assert "\n" not in attempt.error
        for part in (*parts, "assay store adopt"):
            assert part in attempt.error
        return self


class Farm:
    """One board of this machine, and runs that wait for it under one name or another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.board = folder / "board"
        self.runs: dict[str, str] = {}

    def inventory(self, *names: str) -> Path:
        return self.matrix(*names).with_name("inventory.yaml")

    def matrix(self, *names: str) -> Path:
        tiny = Tiny(self.folder / "-".join(names))
        transport = {"type": "local", "root": str(self.board)}
        tiny.devices = [tiny.device(n, **{"class": "rack", "transport": transport}) for n in names]
        tiny.policy["reference"] = [{"device": names[0], "runtime": "ort"}]
        tiny.inputs["limit"] = 4
        return tiny.write()

    def queue(self, store: Store, run: str, *names: str) -> None:
        self.runs[run] = enqueue(store, plan(self.matrix(*names), []), here)

    def run(self, store: Path, run: str) -> Ran:
        said = io.StringIO()
        progress = PlainProgress(said)
        progress.start(1)
        with Store.open(store) as opened:
            frozen = load_run(opened.frozen(self.runs[run]))
            fan = InProcess(store / "spool" / run)
            try:
                owner = this_process()
                work_off(opened, fan, self.runs[run], frozen, progress, Stop(), owner)
            finally:
                fan.close()
            return Ran(opened.attempts(self.runs[run]), said.getvalue())

    def visit(self, store: Path, name: str = "pi-old") -> str:
        """Have a worker started there; what was said about the store."""
        said: list[str] = []
        with (
            Reservations(store, said.append) as reservations,
            visit(device(self, name), reservations) as there,
        ):
            assert there.worker("onnxruntime").ping(60) < 60
        return "\n".join(said)

    def refuses(self, store: Path, *parts: str) -> None:
        with pytest.raises(InfraError) as caught:
            self.visit(store)
        line = str(caught.value)
        assert caught.value.id == "E-STORE-COPY"
        assert "\n" not in line
        for part in (*parts, "assay store adopt"):
            assert part in line

    def remembers(self) -> int:
        """The highest token that the board has seen of the one farm that drove it."""
        (token,) = json.loads((self.board / "lease.json").read_text())["highest"].values()
        return int(token)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A farm whose store has driven its board, and in which more runs wait."""
    farm = Farm(tmp_path_factory.mktemp("farm"))
    with Store.open(farm.folder / "made") as store:
        for run in ("first", "second", "third"):
            farm.queue(store, run, "pi-old")
        farm.queue(store, "renamed", "pi-new")
        farm.queue(store, "both", "pi-old", "pi-new")
    farm.run(farm.folder / "made", "first").fine()
    farm.board.rename(farm.folder / "made-board")
    return farm


@pytest.fixture
def farm(made: Farm) -> Iterator[Farm]:
    shutil.copytree(made.folder / "made-board", made.board)
    yield made
    shutil.rmtree(made.board)


@pytest.fixture
def begun(farm: Farm, tmp_path: Path) -> Path:
    """The store that has driven the farm's board, from where it is now."""
    store = tmp_path / "store"
    shutil.copytree(farm.folder / "made", store)
    farm.visit(store)
    return store


def device(farm: Farm, name: str = "pi-old") -> Device:
    return load_inventories((farm.inventory(name),)).device(name)


def kept(store: Path) -> Path:
    """A backup, where no store is looked for."""
    backup = store.with_name("backup.tar")
    shutil.copytree(store, backup)
    return backup


def put_back(backup: Path, store: Path) -> None:
    shutil.rmtree(store)
    shutil.copytree(backup, store)


def test_a_renamed_board_just_runs(farm: Farm, begun: Path) -> None:
    """The handed case: runs as pi-old, then the inventory calls it pi-new."""
    farm.run(begun, "second").fine()
    ran = farm.run(begun, "renamed").fine()
    assert len(ran.attempts) == 1
    assert farm.remembers() == ran.attempts[0].token
    assert len(farm.run(begun, "third").fine().attempts) == 1


def test_a_restored_store_goes_on_above_what_its_board_remembers(farm: Farm, begun: Path) -> None:
    backup = kept(begun)
    for _ in range(2):  # again from the same backup: the board knows more than it each time
        farm.run(begun, "second").fine()
        remembered = farm.remembers()
        put_back(backup, begun)
        ran = farm.run(begun, "second").fine()
        (line,) = [line for line in ran.said.splitlines() if "restored from a backup" in line]
        assert f"remembers lease {remembered}" in line
        assert ran.counted[0].token > remembered
        assert farm.visit(begun) == ""


def test_a_moved_store_goes_on_and_says_so_once(farm: Farm, begun: Path) -> None:
    moved = begun.rename(begun.with_name("elsewhere"))
    ran = farm.run(moved, "second").fine()
    assert len(ran.attempts) == 1
    (line,) = [line for line in ran.said.splitlines() if "this store was at" in line]
    assert str(begun) in line
    assert str(moved) in line
    assert farm.visit(moved) == ""


def test_of_two_copies_the_board_lets_in_the_first(farm: Farm, begun: Path) -> None:
    copy = begun.with_name("copy")
    shutil.copytree(begun, copy)
    farm.visit(begun)
    farm.run(copy, "second").refused(str(begun), str(copy))
    farm.visit(begun)
    adopted = assay("store", "adopt", "--yes", "--json", store=copy)
    assert adopted.code == 0
    assert adopted.json["schema"] == "assay.store-adopt/1"
    farm.run(copy, "third").fine()
    farm.refuses(begun, str(copy), str(begun))


def test_the_original_is_refused_where_its_copy_was_first(farm: Farm, begun: Path) -> None:
    copy = begun.with_name("copy")
    shutil.copytree(begun, copy)
    assert "if it is a copy" in farm.visit(copy)
    farm.refuses(begun, str(copy), str(begun))
    shutil.rmtree(copy)
    assert "goes on above both" in farm.visit(begun)


def test_a_store_restored_on_another_host_asks_first(
    farm: Farm, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = kept(begun)
    farm.visit(begun)
    put_back(backup, begun)
    monkeypatch.setattr("socket.gethostname", lambda: "another-host")
    farm.refuses(begun, f"another-host:{begun}")
    with Store.open(begun) as store:
        store.adopt()
    farm.visit(begun)


def test_readers_ask_nothing_of_a_copy(farm: Farm, begun: Path) -> None:
    copy = begun.with_name("copy")
    shutil.copytree(begun, copy)
    farm.visit(begun)
    for command in (("status",), ("store", "check")):
        assert assay(*command, store=copy).err == ""
    assert assay("store", "adopt", store=copy).refused(2, "E-USAGE", "--yes")


def test_a_check_says_what_a_run_would_meet(farm: Farm, begun: Path) -> None:
    copy, none = begun.with_name("copy"), begun.with_name("none")
    shutil.copytree(begun, copy)
    farm.visit(begun)
    told = {}
    for store in (begun, copy, none):
        inventory = str(farm.inventory("pi-old"))
        done = assay("devices", "check", "--quick", "-i", inventory, "--json", store=store)
        told[store] = {i["name"]: i for i in done.json["devices"][0]["items"]}["lease"]
    assert told[begun]["state"] == "ok"
    assert (told[copy]["state"], told[copy]["error"]) == ("bad", "E-STORE-COPY")
    assert "a farm's own lease was not tried" in told[none]["finding"]


@pytest.fixture
def older(farm: Farm, tmp_path: Path) -> Path:
    """Store and board as df4554a left them after three leases, the store upgraded."""
    shutil.rmtree(farm.board)
    farm.board.mkdir()
    shutil.copy(OLD / "board" / "lease.json", farm.board)
    store = tmp_path / "older"
    store.mkdir()
    shutil.copy(OLD / "board" / "farm-id", store)
    (store / "assay.db").write_bytes(gzip.decompress((OLD / "leases.db.gz").read_bytes()))
    assert upgrade(store)[0] == "0003"
    return store


def test_what_an_older_worker_left_is_gone_on_from(farm: Farm, older: Path) -> None:
    assert farm.remembers() == 3
    assert farm.visit(older, "pi-new") == ""
    above = farm.remembers()
    assert above > 1_000_000_000, "what still counts by names comes last for ever"
    (owner,) = json.loads((farm.board / "lease.json").read_text())["highest"]
    state = json.loads((farm.board / "lease.json").read_text())
    assert set(state) == {"owner", "token", "counter", "pids", "highest"}, (
        "as older workers want it"
    )
    assert owner == (older / "farm-id").read_text().strip()


@pytest.mark.parametrize("ahead", [4, 2_000_000_000, 2**62])
def test_an_older_memory_that_is_ahead_is_gone_on_from(farm: Farm, older: Path, ahead: int) -> None:
    """The store was restored while an older Assay still counted; a broken board claims anything."""
    lease = farm.board / "lease.json"
    state = json.loads(lease.read_text())
    state["highest"] = dict.fromkeys(state["highest"], ahead)
    lease.write_text(json.dumps(state))
    assert f"remembers lease {ahead}" in farm.visit(older)
    assert farm.remembers() >= ahead
    assert farm.visit(older) == ""
    with Store.open(older) as store:
        lease_of = store.acquire_lease("pi-old", this_process())
    assert lease_of is not None
    assert lease_of.token < 2**31, "one board cannot use up the numbers of all"


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """When each job was at work, from lease to answer.

    The first lasts until another name of the board was refused.
    """
    jobs: list[tuple[float, float]] = []
    refused = threading.Event()
    run, settled = DeviceSession.run, module._Coordinator._settled

    def slow(self: DeviceSession, *given: Any, **more: Any) -> wire.JobResult:
        begin = time.monotonic()
        assert refused.wait(120), "nobody else wanted the board"
        result = run(self, *given, **more)
        jobs.append((begin, time.monotonic()))
        return result

    def look(self: Any, unit: Any, finished: Finished) -> Finished | None:
        answer = settled(self, unit, finished)
        if answer is None:
            refused.set()
        return answer

    monkeypatch.setattr(DeviceSession, "run", slow)
    monkeypatch.setattr(module._Coordinator, "_settled", look)
    return jobs


def one_after_the_other(jobs: list[tuple[float, float]]) -> None:
    (_, end), (begin, _) = sorted(jobs)
    assert end <= begin


def test_one_board_under_two_names_in_a_run_is_driven_by_one_at_a_time(
    farm: Farm, begun: Path, together: list[tuple[float, float]]
) -> None:
    ran = farm.run(begun, "both")
    assert [a.state for a in ran.counted] == [AttemptState.OK] * 2, ran
    one_after_the_other(together)


def test_one_board_in_two_inventories_at_once(
    farm: Farm, begun: Path, together: list[tuple[float, float]]
) -> None:
    ran: list[Ran] = []

    def work(run: str) -> None:
        ran.append(farm.run(begun, run))

    threads = [threading.Thread(target=work, args=(run,)) for run in ("second", "renamed")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([one.fine() for one in ran]) == 2
    one_after_the_other(together)
