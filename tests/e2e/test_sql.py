"""`assay sql` and `assay export` as a user types them, and every question of the guide."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.export.tables import TABLES
from orchestrator.store.database import Store
from tests.support.answered import CLASSES, answer, queued, tiny_of
from tests.support.cli import REPO, assay, start, until
from tests.support.judged import Judged
from tests.support.tiny import MODELS, QUICKSTART, Tiny

GUIDE = (REPO / "docs" / "guides" / "sql.md").read_text()
SAMPLES = 60
Answer = list[dict[str, Any]]


@dataclass(frozen=True)
class Farm:
    """A store with three runs.

    One whose devices decide differently (outputs given by the test), one with a timeout and without
    valid timing, and the newest: two units, two sets of kernels.
    """

    store: Path
    disagreeing: str
    troubled: str
    judged: Judged


def ds(folder: Path) -> Tiny:
    """The quickstart's depthwise net in TFLite, whose kernels differ by up to 2 steps."""
    tiny = Tiny(folder)
    model = tiny.matrix["models"][0]
    model["fp32"] = {"path": str(MODELS / "digits_ds.fp32.tflite")}
    model["files"] = [{"name": "int8", "path": str(MODELS / "digits_ds.int8.tflite")}]
    tiny.inputs.update(path=str(QUICKSTART / "digits_32x32.npz"), limit=SAMPLES)
    tiny.matrix["runtimes"] = [{"name": "ort", "runtime": "litert", "threads": 1}]
    return tiny


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    folder = tmp_path_factory.mktemp("sql")
    path = folder / "store"
    with Store.open(path) as store:
        usual = np.arange(4 * CLASSES, dtype=np.int8).reshape(4, CLASSES)
        other = usual.copy()
        other[2] = other[2, ::-1]
        disagreeing = queued(store, tiny_of(folder / "given", "ab", 4), usual)
        answer(store, disagreeing, "a", usual)
        answer(store, disagreeing, "b", other)
    troubled = ds(folder / "troubled")
    stall = {"kind": "stall", "on": "read", "after": 3, "times": None}
    troubled.devices.append(troubled.fake("slow", stall))
    troubled.matrix |= {"gate": {"max_start_c": 60}, "timeouts": {"silence": "1s"}}
    second = assay("run", troubled.write(), "--json", store=path)
    assert second.code == 4, second.err
    newest = ds(folder / "newest")
    newest.devices.append(newest.device("other"))
    reference = {"name": "ref", "runtime": "litert", "threads": 1, "kernels": "reference"}
    newest.matrix["runtimes"].append(reference)
    third = assay("run", newest.write(), "--json", store=path)
    return Farm(path, disagreeing, second.json["run"]["id"], Judged(third, path))


def differ_most(farm: Farm, found: Answer) -> None:
    rows = {r["id"]: r["vs_reference"] for r in farm.judged.rows.values() if r["vs_reference"]}
    assert [r["row"] for r in found][:2] == ["cnn.int8@bench/ref", "cnn.int8@other/ref"]
    assert {r["row"]: (r["n"] - r["other_bytes"], r["max_lsb"]) for r in found} == {
        id: (v["bit_exact"]["k"], v["max_lsb"]) for id, v in rows.items()
    }
    assert found[0]["other_bytes"] > 0


def flips_by_class(farm: Farm, found: Answer) -> None:
    rows = farm.judged.rows.values()
    assert sum(r["flips"] for r in found) == sum(r["fp32"]["disagreement"]["k"] for r in rows)
    assert sum(r["n"] for r in found) == 4 * SAMPLES
    assert [r["label"] for r in found] == sorted(r["label"] for r in found)


def decided_differently(farm: Farm, found: Answer) -> None:
    (only,) = (r for r in found if r["run"] == farm.disagreeing)
    assert (only["sample"], only["answers"], only["decisions"]) == (2, 2, 2)
    assert only["least_margin"] == 1
    unlike = farm.judged.document["fleet"][0]["instability"]["k"]
    assert len([r for r in found if r["run"] == farm.judged.document["run"]["id"]]) == unlike


def accuracy_of_versions(farm: Farm, found: Answer) -> None:
    (only,) = (r for r in found if r["n"] == SAMPLES)
    right = [r["accuracy"]["k"] for r in farm.judged.rows.values()]
    assert (only["fewest_right"], only["most_right"]) == (min(right), max(right))
    assert only["rows"] == 4 + 1  # and the one of the run before
    assert only["engine"] == "litert"


def percentiles(farm: Farm, found: Answer) -> None:
    latency = farm.judged.document["latency"]
    valid = {row: told for row, told in latency.items() if told["timing_valid"]}
    assert {f"{r['model']}.{r['file']}@{r['device']}/{r['runtime']}" for r in found} == set(valid)
    for r in found:
        told = latency[f"{r['model']}.{r['file']}@{r['device']}/{r['runtime']}"]
        assert r["n"] == told["n"]
        for p in ("p50_us", "p90_us", "p99_us"):
            assert r[p] == pytest.approx(told[p], abs=0.001)


def timed_out(farm: Farm, found: Answer) -> None:
    assert [(r["run"], r["device"], r["timeouts"]) for r in found] == [(farm.troubled, "slow", 1)]
    assert found[0]["error"]


def invalid_timing(farm: Farm, found: Answer) -> None:
    mine = [r for r in found if r["run"] == farm.troubled]
    assert [r["device"] for r in mine] == ["bench"]
    assert all(r["timing_notes"] for r in found)


def steps_apart(farm: Farm, found: Answer) -> None:
    pairs = [p for p in farm.judged.document["pairs"] if p["max_lsb"] > 1]
    assert {(r["a"], r["b"], r["max_lsb"]) for r in found} == {
        (p["a"], p["b"], p["max_lsb"]) for p in pairs
    }
    assert found


def history(farm: Farm, found: Answer) -> None:
    assert [(r["device"], r["runtime"], r["run"]) for r in found] == [
        ("bench", "ort", farm.troubled),
        *(
            (device, runtime, farm.judged.document["run"]["id"])
            for device in ("bench", "other")
            for runtime in ("ort", "ref")
        ),
    ]
    assert all(r["accuracy_n"] == SAMPLES for r in found)


def highest(farm: Farm, found: Answer) -> None:
    sensors = {
        (a["device"], sensor): told["max"]
        for a in farm.judged.document["attempts"]
        for sensor, told in a["sensors"].items()
    }
    seen = {(r["device"], r["sensor"]): r["highest"] for r in found}
    assert {device for device, _ in seen} == {"bench", "other"}
    assert {key: seen[key] for key in sensors} == sensors
    assert all(r["readings"] + r["unreadable"] > 0 for r in found)


CHECKS: list[Callable[[Farm, Answer], None]] = [
    *(differ_most, flips_by_class, decided_differently, accuracy_of_versions, percentiles),
    *(timed_out, invalid_timing, steps_apart, history, highest),
]
QUESTIONS = re.findall(r"```sh\nassay (sql .+?)\n```", GUIDE)


@pytest.mark.parametrize(("line", "check"), zip(QUESTIONS, CHECKS, strict=True))
def test_the_guides_questions(farm: Farm, line: str, check: Callable[..., None]) -> None:
    done = assay(*shlex.split(line), "--json", store=farm.store)
    assert done.code == 0, done.err
    assert done.json["schema"] == "assay.sql/1"
    names = [column["name"] for column in done.json["columns"]]
    check(farm, [dict(zip(names, row, strict=True)) for row in done.json["rows"]])


def test_export_is_what_sql_asks(farm: Farm, tmp_path: Path) -> None:
    done = assay("export", "--parquet", tmp_path / "tables", "--json", store=farm.store)
    assert done.code == 0, done.err
    told = done.json
    assert (told["schema"], told["problems"]) == ("assay.export/1", [])
    assert list(told["tables"]) == sorted(TABLES)
    for name, table in told["tables"].items():
        written = pq.read_table(tmp_path / "tables" / table["file"])
        assert written.schema.equals(TABLES[name].schema, check_metadata=True)
        assert written.num_rows == table["rows"]
    assert told["tables"]["samples"]["rows"] == 4 * SAMPLES


def test_an_answer_that_is_cut_says_so(farm: Farm) -> None:
    question = "SELECT device, count(*) AS n, NULL AS nothing FROM cells GROUP BY ALL ORDER BY ALL"
    cut = assay("sql", question, "--limit", "1", "--json", store=farm.store)
    assert (cut.json["rows"], cut.json["truncated"]) == ([["bench", 2, None]], True)
    assert "only the first 1 rows" in cut.err


def test_runs_can_be_named(farm: Farm) -> None:
    newest = farm.judged.document["run"]["id"]
    named = ("--run", farm.troubled, "--run", newest, "--run", newest)
    done = assay("sql", "SELECT run, state FROM runs", "--csv", *named, store=farm.store)
    assert done.out.splitlines() == ["run,state", f"{farm.troubled},done", f"{newest},done"]


@pytest.mark.parametrize(
    ("arguments", "code", "id", "part"),
    [
        (("SELECT nope FROM cells",), 2, "E-SQL-QUERY", "line 1, column 8"),
        (("SELECT * FROM read_text('/etc/passwd')",), 2, "E-SQL-LOCKED", "/etc/passwd"),
        ((), 2, "E-USAGE", "no question"),
        (("SELECT 1", "--json", "--csv"), 2, "E-USAGE", "--csv"),
    ],
)
def test_refusals_are_one_line(
    farm: Farm, arguments: tuple[str, ...], code: int, id: str, part: str
) -> None:
    assay("sql", *arguments, store=farm.store).refused(code, id, part)


def test_ctrl_c_leaves_nothing_behind(farm: Farm, tmp_path: Path) -> None:
    endless = (
        "WITH RECURSIVE t(n) AS (SELECT count(*) FROM cells UNION ALL SELECT n + 1 FROM t)"
        " SELECT max(n) FROM t"
    )
    running = start("sql", endless, store=farm.store, env={"TMPDIR": str(tmp_path)})
    until(lambda: list(tmp_path.glob("assay-sql-*/tables/cells.parquet")), "the snapshot")
    child = f"/proc/{running.process.pid}/task/{running.process.pid}/children"
    until(lambda: Path(child).read_text().split(), "the child")
    (pid,) = Path(child).read_text().split()
    running.interrupt()
    done = running.wait()
    assert (done.code, done.err.strip()) == (130, "assay: interrupted")
    assert list(tmp_path.iterdir()) == []
    until(lambda: not Path(f"/proc/{pid}").exists(), "the child's end")


def test_the_tables_are_listed_with_their_meaning() -> None:
    listed = assay("sql", "--tables", "--json").json
    assert listed["schema"] == "assay.tables/1"
    assert [t["name"] for t in listed["tables"]] == list(TABLES)
