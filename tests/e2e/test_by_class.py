"""`--by-class`: one unit of an equivalence class in full, spot checks of the others.

The units are on this machine, so they are one class for good reason; one of them goes bad after
its fingerprint was taken.
"""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.coordinator.events import NullProgress
from orchestrator.coordinator.representatives import Representatives
from orchestrator.queue.states import CellState
from orchestrator.runs.snapshot import load_run
from orchestrator.store.database import Store
from tests.support.cli import Done, assay
from tests.support.line import coordinator
from tests.support.line import done as done_of
from tests.support.sealed import reseal_rows
from tests.support.tiny import Tiny

UNITS = ("one", "two", "three", "odd")
SAMPLES = 300
DRAWN = 189
"""Of 300 samples, so that 1 % of them (3) that differ are met with 95 % probability."""

GONE_BAD = """
import hashlib, os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
real = onnxruntime.InferenceSession.run
def run(self, names, feeds, *rest):
    found = real(self, names, feeds, *rest)
    bad = hashlib.sha256(b"".join(x.tobytes() for x in feeds.values())).digest()[0] < 26
    return [x[..., ::-1].copy() for x in found] if bad else found
onnxruntime.InferenceSession.run = run
"""
"""One answer in ten comes out backwards; which ones depends on the sample."""


@dataclass(frozen=True)
class Desk:
    store: Path
    tiny: Tiny

    def run(self, command: str, *arguments: str) -> Done:
        return assay(command, str(self.tiny.write()), *arguments, store=self.store)


def rows(document: Any) -> dict[str, Any]:
    return {row["device"]: row for row in document["rows"]}


def cells(document: Any) -> dict[str, list[str]]:
    """Device -> the conditions that it ran."""
    return {d: [c["condition"] for c in row["cells"]] for d, row in rows(document).items()}


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the fingerprints of all units."""
    folder = tmp_path_factory.mktemp("taken")
    tiny = plain(folder)
    tiny.write()
    asked = ("--runtime", "onnxruntime", "-i", str(tiny.folder / "inventory.yaml"))
    done = assay("fingerprint", *UNITS, *asked, store=folder / "store")
    assert done.code == 0, done.err
    return folder / "store"


def plain(folder: Path) -> Tiny:
    tiny = Tiny(folder)
    tiny.devices = [tiny.device(name) for name in UNITS]
    tiny.inputs["limit"] = SAMPLES
    tiny.policy["reference"] = [{"device": "two", "runtime": "ort"}]
    tiny.policy["gates"]["G3"] = {"enabled": True, "min_ratio": 0.9}
    return tiny


@pytest.fixture
def desk(taken: Path, tmp_path: Path) -> Desk:
    shutil.copytree(taken, tmp_path / "store")
    return Desk(tmp_path / "store", plain(tmp_path / "matrix"))


def spoil(desk: Desk, unit: str) -> None:
    hook = desk.tiny.folder / "hook"
    hook.mkdir(parents=True)
    (hook / "sitecustomize.py").write_text(GONE_BAD)
    desk.tiny.devices[UNITS.index(unit)]["env"] = {"PYTHONPATH": str(hook)}


def test_the_plan_says_who_stands_for_whom_and_what_is_saved(desk: Desk) -> None:
    done = desk.run("plan", "--by-class")
    assert done.code == 0, done.err
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith(f"one-cnn.u8s8-digits-spot:{DRAWN}@20")
    # The policy's reference is the one that the others are gated against, so it runs in full.
    assert lines[1] == "two-cnn.u8s8-digits-clean-ort"
    assert lines[4] == "two stands for one, three, odd in ort: cnn.u8s8 on digits"
    assert lines[5] == "4 cells on 4 devices, 867 inferences instead of 1,200"
    assert lines[6].startswith("device-time saved: unknown")

    found = desk.run("plan", "--by-class", "--json").json["by_class"]
    assert (found["saved_inferences"], found["spots"], found["timed"]) == (333, 3, 0)
    wide = desk.run("plan", "--by-class", "--share", "0.1", "--confidence", "0.9", "--json").json
    assert wide["by_class"]["saved_inferences"] > 800


def test_covered_is_not_passed_unless_the_policy_accepts_it(desk: Desk) -> None:
    done = desk.run("run", "--by-class", "--json")
    assert done.code == 5, done.err
    document, spot = done.json, f"spot:{DRAWN}@"
    assert document["verdict"] == "covered-by-class"
    assert document["coverage"]["planned"] == document["coverage"]["ok"] == 4
    assert {d: row["verdict"] for d, row in rows(document).items()} == {
        "two": "pass",
        **dict.fromkeys(("one", "three", "odd"), "covered-by-class"),
    }
    assert cells(document)["two"] == ["clean"]
    assert all(cells(document)[d][0].startswith(spot) for d in ("one", "three", "odd"))
    told = rows(document)["one"]["by_class"]
    assert (told["standing"], told["by"]) == ("covered", "cnn.u8s8@two/ort")
    assert (told["differing"], told["drawn"], told["of"], told["at_most"]) == (0, DRAWN, SAMPLES, 2)
    assert document["by_class"]["saved_inferences"] == 3 * (SAMPLES - DRAWN)
    assert document["by_class"]["saved_s"] > 0
    assert rows(document)["one"]["id"] in document["latency"]
    record = assay("classes", "--json", store=desk.store).json
    assert (record["tested"]["pairs"], record["tested"]["confirmed"]) == (6, 6)  # of four units
    assert len(record["classes"]) == 1

    shown = assay("signoff", store=desk.store)
    assert "cnn.u8s8@two/ort stands for 3 rows: 189 samples drawn of each" in shown.out
    assert "by class: 333 inferences not run" in shown.out

    saved = desk.run("plan", "--by-class").out.splitlines()[-1]
    assert saved.endswith(" device-seconds saved at the pace of earlier runs"), saved

    desk.tiny.policy["accept_covered_by_class"] = True
    desk.tiny.write()
    policy = str(desk.tiny.folder / "policy.yaml")
    accepted = assay("signoff", "--policy", policy, "--json", store=desk.store)
    assert accepted.code == 0, accepted.err
    assert {row["verdict"] for row in accepted.json["rows"]} == {"pass"}


def test_a_counterexample_leaves_its_class_and_runs_in_full(desk: Desk) -> None:
    spoil(desk, "odd")
    done = desk.run("run", "--by-class", "--json")
    assert done.code in (1, 5), done.err
    assert "odd-cnn.u8s8-digits-clean-ort queued: " in done.err
    document = done.json
    assert cells(document)["odd"][0] == "clean"
    assert cells(document)["odd"][1].startswith("spot:")
    told = rows(document)["odd"]["by_class"]
    assert told["standing"] == "left"
    assert 5 <= told["differing"] <= 40
    assert rows(document)["odd"]["accuracy"]["n"] == SAMPLES
    assert {rows(document)[d]["by_class"]["standing"] for d in ("one", "three")} == {"covered"}
    assert document["by_class"]["left"] == 1
    assert (
        f"{told['differing']} of {DRAWN} samples drawn differ from two"
        in assay("signoff", store=desk.store).out
    )

    # The record of the hypothesis has it, and no later plan lets the two stand for each other.
    found = assay("classes", "--json", store=desk.store).json
    record = found["tested"]
    # Among the drawn all four, and in full odd with two; odd differs from everybody.
    assert (record["pairs"], record["confirmed"]) == (7, 3)
    assert len(record["counterexamples"]) == 3  # odd's with theirs, with two's, and in full
    assert [{m["device"] for m in group["members"]} for group in found["classes"]] == [
        {"odd"},
        {"one", "three", "two"},
    ]
    [split] = found["splits"]
    assert split["families"] == []
    assert "but data set them apart: " in split["words"]
    assert " on cnn.u8s8 with digits " in split["words"]
    plan = desk.run("plan", "--by-class").out.splitlines()
    assert "odd-cnn.u8s8-digits-clean-ort" in plan
    assert "two stands for one, three in ort: cnn.u8s8 on digits" in plan


def test_another_takes_the_place_of_a_representative_without_an_answer(desk: Desk) -> None:
    desk.tiny.devices[1]["python"] = {"default": "/nonexistent/python"}
    done = desk.run("run", "--by-class", "--json")
    document = done.json
    assert rows(document)["two"]["verdict"] == "error"
    assert done.code == 3, done.err
    standing = {d: row["by_class"] for d, row in rows(document).items() if d != "two"}
    [promoted] = [d for d, told in standing.items() if told["standing"] == "representative"]
    assert cells(document)[promoted][0] == "clean"
    others = [told for d, told in standing.items() if d != promoted]
    assert {(t["standing"], t["by"]) for t in others} == {("covered", f"cnn.u8s8@{promoted}/ort")}
    assert f"{promoted}-cnn.u8s8-digits-clean-ort queued: its representative has" in done.err


def test_without_a_fingerprint_a_unit_runs_in_full(desk: Desk) -> None:
    desk.tiny.devices.append(desk.tiny.device("new"))
    done = desk.run("plan", "--by-class")
    assert done.out.splitlines()[4] == "new-cnn.u8s8-digits-clean-ort"
    assert done.err == (
        "assay: no fingerprint of new:onnxruntime: in full (fix: assay fingerprint new)\n"
    )
    assert "stands for one, three, odd" in done.out


def test_too_few_samples_are_not_drawn_from(desk: Desk) -> None:
    desk.tiny.inputs["limit"] = 10
    found = desk.run("plan", "--by-class", "--json").json
    assert found["by_class"]["groups"] == []
    assert found["inferences"] == 40


def test_a_fingerprint_of_another_build_stands_for_nobody(desk: Desk) -> None:
    """The version is the same, and what was probed is not what runs."""
    path, words = "$.taken_on.runtime.native_sha256", "another build of runtime"
    with sqlite3.connect(desk.store / "assay.db") as db:
        db.execute("UPDATE fingerprint SET document = json_set(document, ?, 'c0ffee')", (path,))
    reseal_rows(desk.store, "fingerprint")
    done = desk.run("run", "--by-class", "--json")
    assert all(c[0] == "clean" for c in cells(done.json).values()), done.err
    assert words in done.err

    # From then on it is known, and neither a plan nor the classes use them.
    again = desk.run("plan", "--by-class")
    assert " stands for " not in again.out
    assert "assay: in full: the fingerprint of one is stale: " in again.err
    assert again.err.count("(fix: assay fingerprint ") == len(UNITS)
    found = assay("classes", "--json", store=desk.store)
    assert (found.json["classes"], found.json["tested"]["pairs"]) == ([], 0)
    assert [s["name"] for s in found.json["stale"]] == [f"{u}:onnxruntime" for u in sorted(UNITS)]
    assert words in found.err


def test_a_representative_whose_answer_is_damaged_is_replaced(desk: Desk) -> None:
    run = desk.run("run", "--by-class", "--json").json["run"]["id"]
    with Store.open(desk.store) as store:
        [full] = [c for c in store.cells(run) if c.condition == "clean"]
        answer = next(a for a in store.attempts(run) if a.id == full.attempt)
        path = store.artefacts.path(answer.artefacts["output-0"].sha256)
        path.write_bytes(path.read_bytes()[:-1])
        frozen = load_run(store.frozen(run))
        assert Representatives(store, run, frozen, NullProgress()).more() == 1
        pending = [c for c in store.cells(run) if c.state is CellState.PENDING]
        assert [(c.slot, c.condition) for c in pending] == [("one", "clean")]
        assert Representatives(store, run, frozen, NullProgress()).more() == 0


def test_bad_input(desk: Desk, tmp_path: Path) -> None:
    done = assay("plan", str(desk.tiny.write()), "--by-class", store=tmp_path / "nowhere")
    done.refused(2, "E-STORE-MISSING")
    assert desk.run("plan", "--by-class", "--confidence", "1.5").code == 2
    desk.run("plan", "--share", "0.1").refused(2, "E-USAGE", "--by-class")


@pytest.mark.parametrize("finished", [0, 2, 4])
def test_a_killed_coordinator_leaves_the_decision_to_the_next(desk: Desk, finished: int) -> None:
    """At 4 all spot checks are done, and the cell that they call for is queued or is not yet."""
    spoil(desk, "odd")
    roots = [desk.tiny.root(name) for name in UNITS]
    assert desk.run("submit", "--by-class").code == 0
    with coordinator("resume", store=desk.store, roots=roots) as first:
        first.until(lambda run: done_of(run) >= finished)
        first.kill()
        first.gone()
    done = assay("resume", "--json", "--executor", "inprocess", store=desk.store)
    document = done.json
    assert document["coverage"]["planned"] == document["coverage"]["ok"] == 5, done.err
    assert rows(document)["odd"]["by_class"]["standing"] == "left"
    assert document["by_class"]["covered"] == 2


def test_two_coordinators_decide_alike(desk: Desk) -> None:
    spoil(desk, "odd")
    roots = [desk.tiny.root(name) for name in UNITS]
    assert desk.run("submit", "--by-class").code == 0
    with (
        coordinator("resume", store=desk.store, roots=roots) as one,
        coordinator("resume", store=desk.store, roots=roots) as other,
    ):
        ended = one.running.wait(), other.running.wait()
    for each in ended:
        assert each.code in (1, 5), each.err
        assert each.json["coverage"]["planned"] == each.json["coverage"]["ok"] == 5
        assert each.json["by_class"]["left"] == 1
