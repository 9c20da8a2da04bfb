"""Ctrl-C: drains, gives devices back, exits 130, and `assay resume` finishes the run."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Done, Running, assay, start, until
from tests.support.tiny import Tiny


def status(store: Path) -> Any:
    done = assay("status", "--json", store=store)
    assert done.code == 0, done.err
    return done.json


def outcomes(store: Path) -> dict[str, list[str]]:
    """Cell -> outcomes of its attempts."""
    found: dict[str, list[str]] = {}
    for attempt in assay("logs", "--json", store=store).json["attempts"]:
        found.setdefault(attempt["cell"], []).append(attempt["outcome"])
    return found


def at_work(running: Running, tiny: Tiny) -> None:
    until(lambda: any(tiny.root().glob("out/*/*")), "a cell at work")


def worker_pids(tiny: Tiny) -> list[int]:
    pids = json.loads((tiny.root() / "lease.json").read_text())["pids"]
    return [int(pid) for pid in pids]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def finished(done: Done, cells: int) -> None:
    assert done.code == 0, done.err
    assert done.json["coverage"]["planned"] == done.json["coverage"]["ok"] == cells


@pytest.mark.parametrize(
    ("executor", "number"),
    [
        ("inprocess", signal.SIGINT),
        ("inprocess", signal.SIGTERM),
        ("inprocess", signal.SIGHUP),
        ("ray", signal.SIGINT),
        ("ray", signal.SIGHUP),
    ],
    ids=["inprocess", "sigterm", "sighup", "ray", "ray-sighup"],
)
def test_the_first_one_drains(
    tiny: Tiny, store: Path, executor: str, number: signal.Signals
) -> None:
    tiny.matrix["conditions"] = ["clean", "repeat:3000", "repeat:3001"]
    env = {"ASSAY_EXECUTOR": executor}
    running = start("run", tiny.write(), "--json", store=store, env=env)
    at_work(running, tiny)
    running.interrupt(number)
    done = running.wait()
    (run,) = status(store)["runs"]
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == (
        f"assay: interrupted; go on with: assay resume {run['id']}"
    )
    assert run["state"] == "interrupted"
    assert run["cells"]["running"] == 0
    assert run["cells"]["done"] >= 1
    assert run["cells"]["pending"] >= 1
    assert status(store)["leases"] == []
    assert not (store / "reports").exists()
    # What ran was let end, so nothing was cancelled.
    assert Counter(o for all_ in outcomes(store).values() for o in all_) == {
        "ok": run["cells"]["done"]
    }
    finished(assay("resume", "--json", store=store), 3)
    assert outcomes(store) == {cell: ["ok"] for cell in outcomes(store)}
    assert status(store)["runs"][0]["state"] == "done"


@pytest.mark.parametrize("executor", ["inprocess", "ray"])
def test_the_second_one_stops_at_once(tiny: Tiny, store: Path, executor: str) -> None:
    tiny.repeat(100_000)  # many seconds
    env = {"ASSAY_EXECUTOR": executor}
    running = start("run", tiny.write(), "--json", store=store, env=env)
    at_work(running, tiny)
    pids = worker_pids(tiny)
    running.interrupt()
    time.sleep(0.5)
    running.interrupt()
    began = time.monotonic()
    done = running.wait()
    assert done.code == 130
    assert time.monotonic() - began < 6
    until(lambda: not any(map(alive, pids)), "the worker ends with its coordinator", 10)
    assert status(store)["leases"] == []
    (cell,) = outcomes(store)
    assert outcomes(store)[cell] == ["cancelled"]


def test_a_run_stopped_at_once_can_be_resumed(tiny: Tiny, store: Path) -> None:
    tiny.repeat(8_000)
    running = start("run", tiny.write(), "--json", store=store)
    at_work(running, tiny)
    running.interrupt()
    time.sleep(0.1)
    running.interrupt()
    assert running.wait().code == 130
    finished(assay("resume", "--json", store=store), 1)
    assert list(outcomes(store).values()) == [["cancelled", "ok"]]


def test_before_anything_is_queued_it_stops_at_once(tiny: Tiny, store: Path) -> None:
    running = start("run", tiny.write(), store=store)
    until((store / "assay.db").exists, "the store is opened")
    os.kill(running.process.pid, signal.SIGINT)
    done = running.wait()
    assert done.code == 130
    assert done.err.splitlines()[-1].startswith("assay: interrupted")
    found = assay("status", "--all", "--json", store=store)
    # Either nothing was queued yet, or all of it, and it can be resumed.
    if found.code == 0:
        for run in found.json["runs"]:
            assert run["state"] in ("queued", "interrupted")
            finished(assay("resume", run["id"], "--json", store=store), 1)


def test_a_reader_that_goes_away_is_no_verdict() -> None:
    running = start("plan", "matrices/quickstart.yaml")
    assert running.process.stdout is not None
    running.process.stdout.close()
    running.process.stdout = None
    done = running.wait()
    assert (done.code, done.err) == (0, "")
