"""Stores that are copied, moved, restored and killed at random, and one board.

Real stores and a real fence; only the board's clock is ours, so that nothing waits.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from device_worker import lease as worker_lease
from device_worker.errors import WorkerError
from device_worker.lease import Lease as Fence
from orchestrator.errors import InfraError
from orchestrator.queue.fences import Remembered
from orchestrator.store import database
from orchestrator.store.database import Store
from orchestrator.store.farm import farm_id
from orchestrator.store.records import Lease, Owner

NAMES = st.sampled_from(["pi-old", "pi-new"])
TRIES = 4


@dataclass(eq=False)
class Folder:
    """A store; ``path`` is None once it was deleted. ``kept``: backups of it.

    ``overtaken``: the copy of it that drove the board after it, and where that one was then.
    ``decided``: somebody adopted it, or what it is a copy of.
    """

    path: Path | None
    drove: bool = False
    decided: bool = False
    overtaken: tuple[Folder, Path | None] | None = None
    kept: list[Path] = field(default_factory=list)


@dataclass(eq=False)
class Session:
    """A worker on the board. ``beating``: neither paused nor killed. ``killed``: for ever.

    ``expired``: its store has given it up.
    """

    folder: Folder
    lease: Lease
    fence: Fence
    beating: bool = True
    killed: bool = False
    expired: bool = False

    @property
    def drives(self) -> bool:
        try:
            self.fence.check()
        except WorkerError:
            return False
        return True


@dataclass
class Bench:
    """The board, everything that has driven it, and its clock."""

    root: Path
    dead: set[str] = field(default_factory=set)
    sessions: list[Session] = field(default_factory=list)
    now: float = 0.0
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for session in self.sessions:
            if session.beating and session.drives:
                session.fence.beat()

    def owner(self) -> Owner:
        return Owner(f"coordinator-{next(self.numbers)}", "host", "boot", 1, 1)

    def drive(self, folder: Folder, name: str) -> str:
        """Start a session; "driving", or why not: "leased" in the store, or an error's ID."""
        assert folder.path is not None
        with Store.open(folder.path) as store:
            store.upsert_device(name, "rack", False, {})
            lease = store.acquire_lease(name, self.owner())
            if lease is None:
                return "leased"
            for _ in range(TRIES):
                claim = replace(lease.shown, device=name)
                fence = Fence(
                    str(self.root / "board"), farm_id(folder.path), lease.token, 1.0, claim
                )
                fence._pid = next(self.numbers) + 1000
                try:
                    fence.acquire()
                except WorkerError as error:
                    if "remembered" not in error.more:
                        store.release(lease)
                        return error.code
                    try:
                        seen = Remembered.of(error.more["remembered"])
                        lease, _ = store.catch_up(lease, seen)
                    except InfraError as refused:
                        store.release(lease)
                        return refused.id
                    continue
                self.sessions.append(Session(folder, lease, fence))
                return "driving"
        raise AssertionError("refused again and again")

    def kill(self, *sessions: Session) -> None:
        for session in sessions:
            session.beating, session.killed = False, True
            self.dead.add(session.lease.owner.coordinator)

    def kill_all(self, folder: Folder) -> None:
        """A store is moved or restored while nobody is at work in it."""
        self.kill(*(s for s in self.sessions if s.folder is folder))


class Farm(RuleBasedStateMachine):
    """Rules in the words of whoever looks after the farm."""

    folders = Bundle("folders")
    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory(prefix="assay-fences-")
        self.bench = Bench(Path(self.home.name))
        (self.bench.root / "board").mkdir()
        self.stores: list[Folder] = []
        self.patch = pytest.MonkeyPatch()
        clock = SimpleNamespace(monotonic=lambda: self.bench.now, sleep=self.bench.sleep)
        self.patch.setattr(worker_lease, "time", clock)
        self.patch.setattr(
            database, "owner_is_dead", lambda owner: owner.coordinator in self.bench.dead
        )

    def teardown(self) -> None:
        try:
            self.alone_it_goes_on()
        finally:
            self.patch.undo()
            self.home.cleanup()

    def path(self) -> Path:
        return self.bench.root / f"place-{next(self.bench.numbers)}"

    def added(self, path: Path) -> Folder:
        folder = Folder(path)
        self.stores.append(folder)
        return folder

    @initialize(target=folders)
    def begin(self) -> Folder:
        shutil.copytree(_empty_store(), path := self.path())
        farm_id(path)
        return self.added(path)

    @rule(folder=folders, name=NAMES, target=sessions)
    def drive(self, folder: Folder, name: str) -> Session | None:
        return None if folder.path is None else self.drive_now(folder, name)

    def drive_now(self, folder: Folder, name: str) -> Session | None:
        self.back_up(folder)
        before = len(self.bench.sessions)
        alive = [s for s in self.bench.sessions if s.beating and not s.expired and s.drives]
        said = self.bench.drive(folder, name)
        assert said in ("driving", "leased", "E-LEASE-HELD", "E-STORE-COPY"), said
        assert all(s.drives for s in alive), "a living holder was driven out"
        if said == "driving":
            self.overtake(folder)
        return self.bench.sessions[-1] if len(self.bench.sessions) > before else None

    def overtake(self, folder: Folder) -> None:
        """Of two copies that drove the board the later one may, unless somebody decides."""
        if folder.overtaken is not None and not folder.decided:
            other, place = folder.overtaken
            assert place is None or other.path != place, "two copies drove the board in turn"
        folder.drove, folder.overtaken = True, None
        for other in self.stores:
            if other is not folder and other.drove:
                other.overtaken = folder, folder.path

    @rule(folder=folders, name=NAMES)
    def visit(self, folder: Folder, name: str) -> None:
        """Shorter than anything else that happens."""
        if folder.path is not None:
            self.finish_now(self.drive_now(folder, name))

    @rule(session=consumes(sessions))
    def finish(self, session: Session | None) -> None:
        self.finish_now(session)

    def finish_now(self, session: Session | None) -> None:
        if session is None or session.killed or session.folder.path is None:
            return
        session.fence.release()
        with Store.open(session.folder.path) as store:
            store.release(session.lease)
        self.bench.sessions.remove(session)

    @rule(session=sessions)
    def kill(self, session: Session | None) -> None:
        if session is not None:
            self.bench.kill(session)

    @rule(session=sessions, expired=st.booleans())
    def pause(self, session: Session | None, expired: bool) -> None:
        """It hangs; its coordinator may be given up by those that watch its lease."""
        if session is None:
            return
        session.beating, session.expired = False, session.expired or expired
        if expired and session.folder.path is not None:
            with Store.open(session.folder.path) as store:
                for lease in store.leases():
                    if lease.owner == session.lease.owner:
                        store.expire(lease)

    @rule(session=sessions)
    def come_back(self, session: Session | None) -> None:
        if session is not None and not session.killed:
            session.beating = True

    def back_up(self, folder: Folder) -> None:
        assert folder.path is not None
        kept = self.bench.root / f"kept-{next(self.bench.numbers)}.tar"
        folder.kept.append(shutil.copytree(folder.path, kept))

    @rule(folder=folders, backup=st.integers(0, 99))
    def restore(self, folder: Folder, backup: int) -> None:
        if folder.path is None or not folder.kept:
            return
        self.bench.kill_all(folder)
        shutil.rmtree(folder.path)
        shutil.copytree(folder.kept[backup % len(folder.kept)], folder.path)

    @rule(folder=folders, target=folders)
    def copy(self, folder: Folder) -> Folder:
        if folder.path is None:
            return folder
        shutil.copytree(folder.path, path := self.path())
        made = self.added(path)
        made.decided = folder.decided
        return made

    @rule(folder=folders)
    def move(self, folder: Folder) -> None:
        if folder.path is not None:
            self.bench.kill_all(folder)
            folder.path = folder.path.rename(self.path())

    @rule(folder=folders)
    def delete(self, folder: Folder) -> None:
        if folder.path is not None and sum(f.path is not None for f in self.stores) > 1:
            self.bench.kill_all(folder)
            shutil.rmtree(folder.path)
            folder.path = None

    @rule(folder=folders)
    def adopt(self, folder: Folder) -> None:
        if folder.path is not None:
            with Store.open(folder.path) as store:
                store.adopt()
            folder.decided = True

    @invariant()
    def one_holder(self) -> None:
        driving = [s for s in self.bench.sessions if s.drives]
        assert len(driving) <= 1, [(s.folder.path, s.lease) for s in driving]

    def alone_it_goes_on(self) -> None:
        """Once nobody is at work, each copy can be made the one that drives; the last just does."""
        self.bench.kill(*self.bench.sessions)
        left = [f for f in self.stores if f.path is not None]
        for folder in left:
            assert folder.path is not None
            with Store.open(folder.path) as store:
                for lease in store.leases():  # of coordinators that a copy knows as at work
                    store.expire(lease)
            for name in ("pi-old", "pi-new"):
                said = self.bench.drive(folder, name)
                if said == "E-STORE-COPY":
                    assert len(left) > 1
                    with Store.open(folder.path) as store:
                        store.adopt()
                    said = self.bench.drive(folder, name)
                assert said == "driving", said
                self.bench.kill(*self.bench.sessions)


_EMPTY: list[Path] = []


def _empty_store() -> Path:
    """Made once: that takes longer than everything else here."""
    if not _EMPTY:
        _EMPTY.append(Path(tempfile.mkdtemp(prefix="assay-empty-")) / "store")
        Store.open(_EMPTY[0]).close()
    return _EMPTY[0]


@pytest.fixture(autouse=True, scope="module")
def _tidy() -> object:
    yield
    while _EMPTY:
        shutil.rmtree(_EMPTY.pop().parent)


TestFarm = pytest.mark.timeout(600)(Farm.TestCase)
TestFarm.settings = settings(
    max_examples=6,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_two_copies_never_drive_in_turn() -> None:
    """The shortest sequence of its kind, which random ones meet seldom."""
    farm = Farm()
    try:
        first: Any = farm.begin()
        farm.visit(first, "pi-old")
        second: Any = farm.copy(first)
        for folder, said in (
            (first, "driving"),
            (second, "E-STORE-COPY"),
            (first, "driving"),
            (second, "E-STORE-COPY"),
        ):
            assert farm.bench.drive(folder, "pi-old") == said
            if said == "driving":
                farm.finish_now(farm.bench.sessions[-1])
        farm.adopt(second)
        for folder, said in ((second, "driving"), (first, "E-STORE-COPY")):
            assert farm.bench.drive(folder, "pi-new") == said
    finally:
        farm.teardown()
