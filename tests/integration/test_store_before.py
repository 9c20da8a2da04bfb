"""A store that an Assay of schema 0003 wrote (tests/data/stores): opens, migrates, answers."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import invoke
from orchestrator.store.database import Store
from orchestrator.store.schema import HEAD

ARCHIVE = Path(__file__).parents[1] / "data" / "stores" / "df4554a.tar.xz"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "store"


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    invoke([*arguments, "--json"])
    out, err = capsys.readouterr()
    assert out, err
    return json.loads(out)


def test_it_asks_for_the_upgrade_and_then_answers(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--store", str(store))
    assert invoke(["status", *at]) == 3
    assert "E-STORE-OLD" in capsys.readouterr().err
    assert asked(capsys, "store", "upgrade", *at) == {
        "schema": "assay.store-upgrade/1",
        "from": "0003",
        "to": HEAD,
    }
    status = asked(capsys, "status", "--all", *at)
    (run,) = (r["id"] for r in status["runs"] if r["state"] == "done")
    assert len(status["packs"]) == 1
    with Store.open(store, readonly=True) as opened:
        attempts = opened.attempts(run)
        assert [(a.damage, a.witnessed) for a in attempts] == [(None, True)] * 4
        assert all(a.content for a in attempts)
        assert len(opened.fingerprints()) == 4
    assert asked(capsys, "signoff", run, *at)["verdict"] == "pass"
    assert asked(capsys, "variance", run, "--by", "device", *at)["sets"]
    assert asked(capsys, "agreement", run, *at)["studies"]
    assert len(asked(capsys, "logs", run, *at)["attempts"]) == 4
    assert asked(capsys, "sql", "SELECT count(*) FROM samples", "--run", run, *at)["rows"]
    assert invoke(["export", run, "--parquet", str(tmp_path / "out"), *at]) == 0
    checked = asked(capsys, "store", "check", *at)
    assert (checked["damaged"], checked["damaged_rows"], checked["unwitnessed"]) == ([], [], 0)


def test_what_was_edited_before_the_upgrade_is_unwitnessed(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(store / "assay.db") as db:
        db.execute("UPDATE attempt SET hub = 'x' WHERE device = 'bench-1' AND state = 'ok'")
    db.close()
    assert invoke(["store", "upgrade", "--store", str(store)]) == 0
    assert asked(capsys, "store", "check", "--store", str(store))["unwitnessed"] == 2
