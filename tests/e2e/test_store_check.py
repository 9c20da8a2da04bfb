"""Damaged artefacts: `assay store check` finds them, a sign-off names them, a run replaces them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Done, assay
from tests.support.tiny import Tiny


@dataclass(frozen=True)
class Kept:
    store: Path
    tiny: Tiny

    def run(self, *arguments: str) -> Done:
        return assay(*arguments, store=self.store)

    def judge(self, *arguments: str) -> Done:
        return self.run("signoff", *arguments)

    def spoil(self, sha256: str) -> Path:
        path = self.store / "artefacts" / sha256[:2] / sha256
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
        return path

    def sha_of(self, role: str, device: str) -> str:
        with sqlite3.connect(self.store / "assay.db") as db:
            [(loose, packed)] = db.execute(
                "SELECT x.sha256, x.packed FROM attempt_artefact x JOIN attempt a"
                " ON a.id = x.attempt WHERE x.role = ? AND a.device = ?",
                (role, device),
            )
        found: str = packed or loose
        return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("check")
    tiny = Tiny(folder / "matrix")
    tiny.devices.append(tiny.device("spare"))
    kept = Kept(folder / "store", tiny)
    assert kept.run("run", str(tiny.write())).code == 0
    return kept


@pytest.fixture
def kept(finished: Kept, tmp_path: Path) -> Kept:
    shutil.copytree(finished.store, tmp_path / "store")
    return Kept(tmp_path / "store", finished.tiny)


def rows(done: Done) -> dict[str, Any]:
    return {row["device"]: row for row in done.json["rows"]}


def test_a_whole_store(kept: Kept) -> None:
    done = kept.run("store", "check")
    assert (done.code, done.err) == (0, "")
    assert "0 damaged\n" in done.out
    assert done.out.splitlines()[-1].endswith(" records; 0 damaged")
    told = kept.run("store", "check", "--json").json
    assert told["damaged"] == told["damaged_rows"] == []
    assert told["unwitnessed"] == 0
    assert told["rows"] > 20
    assert told["unused"] == 0
    assert told["files"] > 5


def test_a_corrupt_pack_costs_its_latencies_and_no_verdict(kept: Kept) -> None:
    pack = kept.spoil(kept.sha_of("latency_ns", "bench"))
    done = kept.judge("--json")
    assert done.code == 0
    document = done.json
    assert (document["verdict"], document["latency"]) == ("pass", {})
    assert {d["error_id"] for d in document["damaged"]} == {"E-ARTEFACT-CORRUPT"}
    assert {d["what"] for d in document["damaged"]} == {
        f"latency of {d}-cnn.u8s8-digits-clean-ort" for d in ("bench", "spare")
    }
    assert "latency of bench-cnn.u8s8-digits-clean-ort cannot be read" in kept.judge().out

    checked = kept.run("store", "check")
    assert checked.code == 3
    assert "needed by: latency_ns of" in checked.out
    assert "(2 attempts)" in checked.out

    assert kept.run("store", "check", "--quarantine").code == 3
    assert not pack.exists()
    assert (kept.store / "quarantine" / pack.name).exists()
    again = kept.judge("--json").json
    assert again["verdict"] == "pass"
    assert {d["error_id"] for d in again["damaged"]} == {"E-ARTEFACT-MISSING"}


def test_outputs_that_are_damaged_are_an_error_of_their_row(kept: Kept) -> None:
    sha = kept.sha_of("output-0", "spare")
    assert sha == kept.sha_of("output-0", "bench"), "both units gave the same bytes"
    kept.spoil(sha)
    done = kept.judge("--json")
    assert done.code == 3
    assert kept.judge("--json").code == 3, "nor is it shown the second time"
    assert {d: row["verdict"] for d, row in rows(done).items()} == {
        "bench": "error",
        "spare": "error",
    }
    assert "has content" in " ".join(rows(done)["spare"]["reasons"])
    kept.run("store", "check", "--quarantine")
    rerun = kept.run("run", str(kept.tiny.write()))
    assert rerun.code == 0, rerun.err
    assert kept.run("store", "check", "--json").json["damaged"] == []


def test_a_damaged_baseline(kept: Kept) -> None:
    with sqlite3.connect(kept.store / "assay.db") as db:
        [[data]] = db.execute("SELECT data FROM baseline")
    [sha] = json.loads(data)["outputs"]
    kept.spoil(sha)
    assert "needed by: an FP32 baseline" in kept.run("store", "check").out
    done = kept.judge("--json")
    assert [d["what"] for d in done.json["damaged"]] == ["the FP32 baseline of cnn on digits"]
    assert rows(done)["bench"]["fp32"] is None


def test_a_model_that_is_gone(kept: Kept) -> None:
    with sqlite3.connect(kept.store / "assay.db") as db:
        [[frozen]] = db.execute("SELECT frozen FROM run")
    sha = json.loads(frozen)["staging"]["models"]["cnn.u8s8"]["sha256"]
    (kept.store / "artefacts" / sha[:2] / sha).unlink()
    done = kept.run("store", "check")
    assert done.code == 3
    assert "E-ARTEFACT-MISSING" in done.out
    assert "needed by: model cnn.u8s8 of" in done.out


def test_no_store(tmp_path: Path) -> None:
    assay("store", "check", store=tmp_path / "none").refused(2, "E-STORE-MISSING")
