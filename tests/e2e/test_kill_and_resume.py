"""SIGKILL to every part of the line, then `assay resume`: the same answer as if nothing had been.

Every cell counts one attempt, no lease leaks, nothing that was started outlives its coordinator.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.queue.states import CellState
from orchestrator.store.farm import farm_id
from orchestrator.store.records import RunInfo
from tests.support import sshd
from tests.support.cli import REPO, Done, assay, until
from tests.support.line import (
    RAY_AGENTS,
    Coordinator,
    Summary,
    coordinator,
    descendants,
    done,
    pids_of,
    slow,
    summary,
    workers,
)
from tests.support.tiny import Tiny

pytestmark = pytest.mark.timeout(240)
needs_sshd = pytest.mark.skipif(sshd.MISSING is not None, reason=str(sshd.MISSING))

CELLS = 16
BOARD, BOARDS = "qemu-nehalem", REPO / "matrices" / "inventories" / "lab.yaml"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = tmp_path_factory.mktemp("undisturbed")
    tiny, store = slow(Tiny(folder / "matrix")), folder / "store"
    assert_ended(assay("run", tiny.write(), "--json", store=store))
    found = summary(store)
    assert set(found.outcomes.values()) == {"ok"}
    assert len(found.outputs) == CELLS
    assert all(len(hashes) == 2 for hashes in found.outputs.values())
    return found


def assert_ended(ended: Done) -> None:
    """With a verdict, whichever it is."""
    assert ended.code in (0, 1, 5), ended.err
    assert ended.json["coverage"]["planned"] == ended.json["coverage"]["ok"]


def roots(tiny: Tiny) -> list[Path]:
    return [tiny.root("one"), tiny.root("two")]


def at_work_after(cells: int) -> Callable[[RunInfo], bool]:
    """So many cells are done, and another one is being run."""
    return lambda run: done(run) >= cells and run.cells[CellState.RUNNING] > 0


# The coordinator -----------------------------------------------------------------------------


@pytest.mark.parametrize("finished", [0, 1, CELLS // 2, CELLS - 1])
def test_coordinator_on_threads(
    tiny: Tiny, store: Path, undisturbed: Summary, finished: int
) -> None:
    slow(tiny)
    with coordinator("run", tiny.write(), store=store, roots=roots(tiny)) as first:
        first.until(at_work_after(finished))
        first.kill()
        first.gone()
    with coordinator("resume", store=store, roots=roots(tiny)) as second:
        assert_ended(second.running.wait())
        second.gone()
    assert summary(store) == undisturbed


def test_coordinator_with_ray_killed_again_and_again(
    tiny: Tiny, store: Path, undisturbed: Summary
) -> None:
    """Each successor starts at once, while hubs and workers of the dead one are still at it."""
    slow(tiny)
    command: tuple[str | Path, ...] = ("run", tiny.write())
    with contextlib.ExitStack() as stack:

        def ray(*command: str | Path) -> Coordinator:
            return stack.enter_context(
                coordinator(*command, store=store, roots=roots(tiny), executor="ray")
            )

        killed: list[Coordinator] = []
        for finished in (1, CELLS - 2):
            killed.append(ray(*command))
            killed[-1].until(at_work_after(finished))
            assert killed[-1].named("ray::Hub")
            killed[-1].kill()
            command = ("resume",)
        last = ray(*command)
        assert_ended(last.running.wait())
        last.gone()
        assert summary(store) == undisturbed
        for each in killed:
            each.gone(but=RAY_AGENTS)
        killed[0].gone(timeout=75)


def test_coordinator_killed_while_it_judges(tiny: Tiny, store: Path, undisturbed: Summary) -> None:
    """All cells are done: what is left is to compact and to judge."""
    slow(tiny)
    with coordinator("run", tiny.write(), store=store, roots=roots(tiny)) as first:
        first.until(lambda run: done(run) == CELLS)
        first.kill()
        first.gone()
    with coordinator("resume", store=store, roots=roots(tiny)) as second:
        assert_ended(second.running.wait())
    assert summary(store) == undisturbed


def test_two_coordinators_share_a_run(tiny: Tiny, store: Path, undisturbed: Summary) -> None:
    slow(tiny)
    assert assay("submit", tiny.write(), store=store).code == 0
    with (
        coordinator("resume", store=store, roots=roots(tiny)) as one,
        coordinator("resume", store=store, roots=roots(tiny)) as other,
    ):
        ended = one.running.wait(), other.running.wait()
        one.gone()
        other.gone()
    for each in ended:
        assert_ended(each)
    assert summary(store) == undisturbed


def test_one_of_two_coordinators_is_killed(tiny: Tiny, store: Path, undisturbed: Summary) -> None:
    slow(tiny)
    with (
        coordinator("run", tiny.write(), store=store, roots=roots(tiny)) as one,
        contextlib.ExitStack() as stack,
    ):
        one.until(at_work_after(1))
        other = stack.enter_context(coordinator("resume", store=store, roots=roots(tiny)))
        one.until(at_work_after(3))
        one.kill()
        # Nobody has to ask it to: it sees that the other one's process is no more.
        assert_ended(other.running.wait())
        other.gone()
    assert summary(store) == undisturbed


# Hub and worker ------------------------------------------------------------------------------


def ended_then_resumed(ran: Coordinator, store: Path, *expected: str) -> None:
    """It was hit, and got over it by itself; resuming what is done changes nothing."""
    ended = ran.running.wait()
    assert_ended(ended)
    errors = {a["error_id"] for a in ended.json["attempts"]} - {None}
    assert errors, "nothing was hit"
    assert errors <= set(expected)
    ran.gone()
    before = summary(store)
    assert_ended(assay("resume", "--json", store=store))
    assert summary(store) == before


def test_hub_actor(tiny: Tiny, store: Path, undisturbed: Summary) -> None:
    slow(tiny)
    with coordinator("run", tiny.write(), store=store, roots=roots(tiny), executor="ray") as ran:
        for finished in (1, CELLS // 2):
            ran.until(at_work_after(finished))
            hubs = ran.named("ray::Hub")
            assert len(hubs) == 1
            os.kill(hubs[0], signal.SIGKILL)
            ran.until(lambda _: not set(hubs) & set(ran.named("ray::Hub")))  # noqa: B023  used at once
        ended_then_resumed(ran, store, "E-HUB-LOST")
    assert summary(store) == undisturbed


def test_device_worker(tiny: Tiny, store: Path, undisturbed: Summary) -> None:
    slow(tiny)
    with coordinator("run", tiny.write(), store=store, roots=roots(tiny)) as ran:
        for finished in (0, CELLS // 2):
            ran.until(at_work_after(finished))
            ran.until(lambda _: workers(tiny.root("two")))
            os.kill(workers(tiny.root("two"))[0], signal.SIGKILL)
        ended_then_resumed(ran, store, "E-WORKER-KILLED", "E-LINK")
    assert summary(store) == undisturbed


def test_worker_and_coordinator_together(tiny: Tiny, store: Path, undisturbed: Summary) -> None:
    slow(tiny)
    with coordinator("run", tiny.write(), store=store, roots=roots(tiny)) as first:
        first.until(at_work_after(2))
        first.until(lambda _: workers(tiny.root("one")))
        os.kill(workers(tiny.root("one"))[0], signal.SIGKILL)
        first.kill()
        first.gone()
    with coordinator("resume", store=store, roots=roots(tiny)) as second:
        assert_ended(second.running.wait())
    assert summary(store) == undisturbed


# A real sshd ---------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[sshd.Sshd]:
    with sshd.running(tmp_path / "sshd") as up:
        yield up


def over_ssh(tiny: Tiny, server: sshd.Sshd) -> Tiny:
    slow(tiny)
    for device in tiny.devices:
        root = str(tiny.root(device["name"]))
        device["transport"] = server.settings(root=root).model_dump()
    return tiny


@needs_sshd
def test_sshd_sessions(tiny: Tiny, store: Path, server: sshd.Sshd, undisturbed: Summary) -> None:
    over_ssh(tiny, server)
    with coordinator("run", tiny.write(), store=store, roots=roots(tiny)) as ran:
        for finished in (1, CELLS // 2):
            ran.until(at_work_after(finished))
            server.signal_sessions(signal.SIGKILL)
        ended_then_resumed(ran, store, "E-LINK")
    assert summary(store) == undisturbed


@needs_sshd
def test_sshd_with_its_listener(
    tiny: Tiny, store: Path, server: sshd.Sshd, undisturbed: Summary
) -> None:
    """As where an init respawns it after a second."""
    over_ssh(tiny, server)
    with coordinator("run", tiny.write(), store=store, roots=roots(tiny)) as ran:
        ran.until(at_work_after(2))
        for pid in (*server.sessions(), server.process.pid):
            os.kill(pid, signal.SIGKILL)
        server.process.wait()
        time.sleep(1.0)
        with respawned(server):
            ended_then_resumed(ran, store, "E-LINK")
    assert summary(store) == undisturbed


@needs_sshd
def test_worker_over_ssh(tiny: Tiny, store: Path, server: sshd.Sshd, undisturbed: Summary) -> None:
    over_ssh(tiny, server)
    with coordinator("run", tiny.write(), store=store, roots=roots(tiny)) as ran:
        ran.until(at_work_after(1))
        ran.until(lambda _: workers(tiny.root("one")))
        os.kill(workers(tiny.root("one"))[0], signal.SIGKILL)
        ended_then_resumed(ran, store, "E-WORKER-KILLED", "E-WORKER-DIED", "E-LINK")
    assert summary(store) == undisturbed


@needs_sshd
def test_coordinator_over_ssh(
    tiny: Tiny, store: Path, server: sshd.Sshd, undisturbed: Summary
) -> None:
    """The workers' own watch ends them: nobody is there to stop them."""
    over_ssh(tiny, server)
    with coordinator("run", tiny.write(), store=store, roots=roots(tiny)) as first:
        first.until(at_work_after(3))
        first.kill()
        first.gone()
    with coordinator("resume", store=store, roots=roots(tiny)) as second:
        assert_ended(second.running.wait())
        second.gone()
    assert summary(store) == undisturbed


@contextlib.contextmanager
def respawned(server: sshd.Sshd) -> Iterator[None]:
    """The listener again, with the configuration it had."""
    assert sshd.SSHD is not None
    config, log = server.folder / "sshd_config", server.folder / "sshd.log"
    server.process = subprocess.Popen(
        [sshd.SSHD, "-D", "-f", config, "-E", log], stdin=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        server.signal_sessions(signal.SIGKILL)
        server.process.kill()
        server.process.wait()


# A virtual board -----------------------------------------------------------------------------


@pytest.mark.farm
def test_sshd_of_a_board(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    """Sessions and listener; the board's init starts the listener again."""
    slow(tiny, (BOARD,), passes=20)
    boards = yaml.safe_load(BOARDS.read_text())["devices"]
    tiny.devices = [device for device in boards if device["name"] == BOARD]
    tiny.matrix["name"] = f"kill-{os.getpid()}"
    matrix = tiny.write()
    assert_ended(assay("run", matrix, "--json", store=tmp_path / "undisturbed"))
    with coordinator("run", matrix, store=store, roots=[]) as ran:
        ran.until(at_work_after(2))
        (init,) = pids_of(f"infra.virtual_farm.init {BOARD}")
        for pid in descendants(init, "sshd"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended_then_resumed(ran, store, "E-LINK")
    mine = f"--owner {farm_id(store)}"  # others may be at work there
    until(lambda: not descendants(init, mine), "no worker is left on the board")
    assert summary(store) == summary(tmp_path / "undisturbed")


# Two farms, one device -----------------------------------------------------------------------


def test_two_farms_on_one_device(tiny: Tiny, store: Path, tmp_path: Path) -> None:
    slow(tiny, ("one",))
    tiny.matrix |= {"conditions": ["clean", "repeat:9000"], "retry": {"infra": 0}}
    matrix, other = tiny.write(), tmp_path / "other"
    second = ("run", matrix, "--json", "--select", "*-clean-lite")
    with coordinator("run", matrix, store=store, roots=[tiny.root("one")]) as first:
        first.until(at_work_after(1))
        refused = assay(*second, store=other)
        assert first.running.process.poll() is None, "the first farm still has the device"
        assert_ended(first.running.wait())
    assert (refused.code, refused.json["verdict"]) == (3, "error")
    assert [(a["outcome"], a["error_id"]) for a in refused.json["attempts"]] == [
        ("infra_error", "E-LEASE-HELD")
    ]
    alone = summary(store)
    assert set(alone.outcomes.values()) == {"ok"}
    # Now that the device is free the second farm has its turn, and comes to the same.
    assert_ended(assay(*second, store=other))
    again = summary(other).outputs
    assert again == {cell: alone.outputs[cell] for cell in again}
    assert len(again) == 1
