"""What docs/CONTRIBUTING.md says of extending: a toy of each, registered from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import run as flow
from orchestrator.cli.main import invoke
from orchestrator.conditions import Condition, condition, parse
from orchestrator.conditions.condition import Kind, register
from orchestrator.reports.formats import FORMATS, Format
from tests.support.tiny import Tiny


@pytest.fixture
def twice() -> Iterator[str]:
    """A condition under which the whole set is run twice."""
    register(Kind("twice", "'twice:all'", lambda text, rest: Condition(text, passes=2)))
    yield "twice:all"
    del condition.KINDS["twice"]
    parse.cache_clear()


def test_a_condition(
    twice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny = Tiny(tmp_path / "matrix")
    tiny.matrix["conditions"] = ["clean", twice]
    matrix = tiny.write()
    monkeypatch.setenv("ASSAY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ASSAY_EXECUTOR", "inprocess")

    def printed(*arguments: str) -> str:
        capsys.readouterr()
        assert invoke([*arguments]) in (0, 1, 5), capsys.readouterr().err
        return capsys.readouterr().out

    planned = flow.plan(matrix, [])
    (cell,) = (c for c in planned.cells if c.condition == twice)
    document = json.loads(printed("run", str(matrix), "--json"))
    (row,) = document["rows"]
    told = {c["condition"]: c for c in row["cells"]}
    assert told[twice]["cell"] == cell.id
    assert told[twice]["status"] == "ok"
    (attempt,) = (a for a in document["attempts"] if a["cell"] == cell.id)
    counted = json.loads(printed("sql", "select condition from attempts", "--json"))
    assert twice in json.dumps(counted["rows"])
    page = next((tmp_path / "store" / "reports").glob("*.html")).read_text()
    assert cell.id in page
    assert attempt["id"] in page


def test_a_report_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASSAY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ASSAY_EXECUTOR", "inprocess")
    monkeypatch.setitem(FORMATS, "ids", Format("ids", ".ids", lambda d: str(d["run"]["id"])))
    out = tmp_path / "run.ids"
    assert invoke(["run", str(Tiny(tmp_path / "matrix").write()), "--report", str(out)]) == 0
    run = out.read_text()
    assert invoke(["report", "--format", "ids"]) == 0
    assert (tmp_path / "store" / "reports" / f"{run}.ids").read_text() == run
