"""The thermal protocol on an emulated board, whose heat is a model that can be driven.

What is shown is the protocol: who waits, who stops, what is put back. Nothing about heat.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.analysis.document import schema
from orchestrator.matrix.loader import load_inventories
from orchestrator.queue.states import CellState
from orchestrator.store import series
from orchestrator.store.database import Store
from orchestrator.transports import open_transport
from tests.support.cli import REPO, assay, start
from tests.support.judged import Judged
from tests.support.line import newest
from tests.support.tiny import Tiny

pytestmark = [pytest.mark.farm, pytest.mark.timeout(600)]

BOARD = "qemu-nehalem"
BOARDS = REPO / "matrices" / "inventories" / "lab.yaml"
GOVERNORS = [f"/sys/devices/system/cpu/cpu{n}/cpufreq/scaling_governor" for n in range(4)]
LET_GO = ("temp_c=auto", "ambient_c=auto")


def drive(*settings: str) -> None:
    """Set what the board's sensors follow."""
    command = [sys.executable, "-m", "infra.virtual_farm", "set", BOARD, *settings]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def heat(*settings: str) -> None:
    """The same, and wait until they do: the board moves its sensors once a second."""
    drive(*settings)
    time.sleep(2.5)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Tiny]:
    """A matrix of eight samples on one board, which is let go afterwards."""
    tiny = Tiny(tmp_path / "matrix")
    listed = yaml.safe_load(BOARDS.read_text())["devices"]
    tiny.devices = [next(d for d in listed if d["name"] == BOARD)]
    tiny.inputs["limit"] = 8
    tiny.policy |= {"accept_emulated": True, "reference": [{"device": BOARD, "runtime": "ort"}]}
    try:
        yield tiny
    finally:
        drive(*LET_GO)


def the_attempt(document: dict[str, Any]) -> dict[str, Any]:
    """Of the one cell, the try that counts: the link to a busy board may fail at first."""
    found: dict[str, Any] = document["attempts"][-1]
    return found


def hottest(sensors: dict[str, Any], at: str) -> float:
    return max(float(v[at]) for name, v in sensors.items() if name.startswith("temp/"))


def governors(tiny: Tiny) -> list[str]:
    device = load_inventories((tiny.folder / "inventory.yaml",)).device(BOARD)
    with open_transport(device.transport, device=BOARD) as link:
        return link.run(["cat", *GOVERNORS], timeout=30).stdout.decode().split()


def test_a_hot_board_starts_late_or_with_a_note(board: Tiny, store: Path) -> None:
    heat("temp_c=82")
    board.matrix["gate"] = {"max_start_c": 60, "settle_s": 3}
    done = assay("run", board.write(), "--json", store=store, timeout=300)
    attempt = the_attempt(done.json)
    assert (attempt["outcome"], done.json["coverage"]["ok"]) == ("ok", 1)
    assert attempt["notes"][0] == "started at 82 °C, over the limit of 60 °C"
    (row,) = done.json["rows"]
    assert not row["cells"][0]["timing_valid"]
    assert done.json["latency"][row["id"]]["timing_valid"] is False
    assert row["verdict"] == "pass", "heat spoils a timing, not an integer"


def test_a_hot_board_is_held_back_until_it_is_cool(board: Tiny, store: Path) -> None:
    heat("temp_c=82")
    board.matrix["gate"] = {"max_start_c": 60, "settle_s": 300}
    running = start("run", board.write(), "--json", store=store)
    end = time.monotonic() + 120
    while (run := newest(store)) is None or not run.cells[CellState.RUNNING]:
        assert time.monotonic() < end, "the cell was never given out"
        time.sleep(0.1)
    time.sleep(12)  # in which the cell would have come to its end
    if running.process.poll() is not None:
        raise AssertionError(f"it did not wait: {running.wait()}")
    drive("temp_c=45")
    done = running.wait(300)
    attempt = the_attempt(done.json)
    assert attempt["outcome"] == "ok"
    assert not [note for note in attempt["notes"] if "started at" in note]
    assert hottest(attempt["sensors"], "start") <= 60


def test_the_ceiling_stops_a_board(board: Tiny, store: Path) -> None:
    heat("temp_c=84")
    board.matrix |= {"gate": {"ceiling_c": 80}, "retry": {"infra": 0}}
    done = assay("run", board.write(), "--json", store=store, timeout=300)
    attempt = the_attempt(done.json)
    assert (attempt["outcome"], attempt["error_id"], done.code) == ("infra_error", "E-CEILING", 3)
    assert "stopped at 84 °C, above the ceiling of 80 °C" in attempt["error"]
    assert attempt["sensors"] == {}


@pytest.fixture
def warm(board: Tiny) -> Tiny:
    """The board in balance at 59 °C while idle; one busy core would bring it to 76 °C."""
    heat("temp_c=59")
    drive("ambient_c=39", "temp_c=auto")
    return board


def test_soak_and_power_modes(warm: Tiny, store: Path) -> None:
    warm.matrix |= {
        "conditions": [
            "clean",
            "soak:60C/3s",
            "soak:99C/1s",
            "power:performance",
            "power:powersave",
            "power:schedutil",
            "power:nosuch",
        ],
        "gate": {"heat_s": 12},
        "telemetry_hz": 4.0,
    }
    warm.devices[0]["power"] = ["powersave"]
    warm.policy["gates"]["G2"] = {"min_repeats": 3}
    matrix = warm.write()
    before = governors(warm)
    assert set(before) == {"performance"}
    found = Judged(assay("run", matrix, "--json", store=store, timeout=500), store)
    assert governors(warm) == before, "every mode is put back"
    jsonschema.Draft202012Validator(schema()).validate(found.document)

    (row,) = found.rows.values()
    cells = {c["condition"]: c for c in row["cells"]}
    assert {c: x["status"] for c, x in cells.items()} == {
        **dict.fromkeys(cells, "ok"),
        "power:schedutil": "not_available",  # the inventory does not allow it
        "power:nosuch": "not_available",  # its class does not know it
    }
    reached, missed = cells["soak:60C/3s"]["soak"], cells["soak:99C/1s"]["soak"]
    assert reached["reached"]
    assert reached["max_c"] >= 60
    assert reached["hold_s"] >= 3
    assert (reached["mismatches"], missed["mismatches"]) == (0, 0)
    assert not missed["reached"]
    assert missed["heat_s"] >= 12
    assert cells["power:performance"]["power"] == "performance"
    assert cells["power:powersave"]["power"] == "powersave"
    assert cells["power:schedutil"]["power"] is None

    assert row["verdict"] == found.verdict == "inconclusive"
    assert any("soak:99C/1s: soak target not reached" in r for r in row["reasons"])
    assert any("power:schedutil: not available" in r for r in row["reasons"])
    assert not any("soak:60C/3s" in r for r in row["reasons"])
    assert found.gate(row["id"], "G2")["verdict"] == "pass"
    ids = {a["cell"]: a["error_id"] for a in found.document["attempts"] if a["error_id"]}
    assert set(ids.values()) == {"E-POWER-MODE"}
    soaked = next(a for a in found.attempts.values() if a.condition == "soak:60C/3s")
    with Store.open(store, readonly=True) as opened:
        readings = series.telemetry(opened, found.document["run"]["id"])[soaked.info.id]
    times = sorted({reading.t_s for reading in readings})
    assert times[-1] - times[0] >= reached["heat_s"] + reached["hold_s"], "watched to the end"
    assert max(b - a for a, b in pairwise(times)) < 1.5, "and all the time, if not 4 times a second"
