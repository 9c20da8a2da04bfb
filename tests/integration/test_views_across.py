"""`assay variance --across-runs` over a store: a row is an answer, however often it was given."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.analysis.rows_across import load_across
from orchestrator.analysis.rows_alike import alike
from orchestrator.analysis.rows_groups import grouped
from orchestrator.analysis.rows_load import load
from orchestrator.analysis.rows_pairs import paired
from orchestrator.errors import InputError, NotAvailableError
from orchestrator.reports.views import render
from orchestrator.store.database import Store
from tests.support.answered import CLASSES, answer, queued, tiny_of
from tests.support.cli import assay

N = 40
USUAL = np.arange(N * CLASSES, dtype=np.int64).reshape(N, CLASSES).astype(np.int8) // 2
CHANGED = USUAL.copy()
CHANGED[7] = CHANGED[7, ::-1]


@dataclass
class World:
    store: Store
    folder: Path
    runs: list[str] = field(default_factory=list)

    def add(self, answers: dict[str, Any], inputs: str = "0" * 64) -> str:
        tiny = tiny_of(self.folder / f"matrix-{len(self.runs)}", answers, N)
        self.runs.append(queued(self.store, tiny, USUAL))
        for device, outputs in answers.items():
            answer(self.store, self.runs[-1], device, outputs, inputs=inputs)
        return self.runs[-1]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Unit a answers alike in two runs and differently in the third, b always alike.

    The fourth run asked about other inputs.
    """
    with Store.open(tmp_path / "store") as store:
        found = World(store, tmp_path)
        found.add({"a": USUAL, "b": USUAL})
        found.add({"a": USUAL, "b": USUAL})
        found.add({"a": CHANGED, "b": USUAL})
        found.add({"a": CHANGED}, inputs="1" * 64)
        yield found


def text(document: dict[str, Any]) -> str:
    json.dumps(document, allow_nan=False)
    stream = io.StringIO()
    render(document, Console(file=stream, width=200))
    return stream.getvalue()


def test_a_row_is_an_answer_and_knows_the_runs_that_gave_it(world: World) -> None:
    first, second, third, _ = world.runs
    document = alike(load_across(world.store, first))
    assert (document["run"]["id"], document["across_runs"]) == (first, True)
    assert document["runs"] == sorted([first, second, third])
    (one,) = document["sets"]
    rows = {r["id"]: r for r in one["rows"]}
    assert {id: r["runs"] for id, r in rows.items()} == {
        f"cnn.int8@a/litert of {third}": [third],
        f"cnn.int8@a/litert of {second}": [second, first],
        "cnn.int8@b/litert": [third, second, first],
    }
    assert [len(r["attempts"]) for r in rows.values()] == [len(r["runs"]) for r in rows.values()]
    assert one["identical"] == [[f"cnn.int8@a/litert of {second}", "cnn.int8@b/litert"]]
    (pair,) = one["pairs"]
    assert {pair["a"], pair["b"]} <= set(rows)
    assert (pair["bit_exact"]["k"], pair["disagreement"]["k"], pair["n"]) == (N - 1, 1, N)
    shown = text(document)
    assert "a/litert: 2 different answers in 3 runs" in shown
    assert "b/litert: the same bytes in 3 runs" in shown


def test_without_a_run_all_that_was_asked_is_answered(world: World) -> None:
    loaded = load_across(world.store, None)
    assert [len(s.rows) for s in loaded.sets] in ([3, 1], [1, 3])
    assert sorted(loaded.runs) == sorted(world.runs)
    assert loaded.run["id"] is None
    other = load_across(world.store, world.runs[-1])
    assert [len(s.rows) for s in other.sets] == [1]
    with pytest.raises(InputError, match="E-RUN-UNKNOWN"):
        load_across(world.store, "nope")


def test_a_pair_may_be_of_two_runs(world: World) -> None:
    first, _, third, _ = world.runs
    loaded = load_across(world.store, first)
    (pair,) = paired(loaded, "a", "a")["sets"][0]["pairs"]
    (sample,) = pair["samples"]
    assert (sample["sample"], sample["differ"]) == (7, True)
    (same,) = paired(loaded, f"a/litert of {first}", f"a/litert of {third}")["sets"][0]["pairs"]
    assert same["disagreement"]["k"] == 1
    with pytest.raises(InputError, match=f"a/litert of {first}"):
        paired(loaded, f"a/litert of {first}", "nobody")
    one_run = paired(load(world.store, third), "a", "b")["sets"][0]["pairs"][0]
    assert one_run["disagreement"] == pair["disagreement"]


def test_groups_over_runs_have_the_numbers_of_one_run(world: World) -> None:
    third = world.runs[2]
    over = grouped(load_across(world.store, third), "device")["sets"][0]
    alone = grouped(load(world.store, third), "device")["sets"][0]
    changed = next(r for r in over["rows"] if r["runs"] == [third])
    (same,) = (r for r in alone["rows"] if r["device"] == "a")
    for name in ("accuracy", "calibration", "confidence", "fp32", "kld"):
        assert changed[name] == same[name]
    assert alone["rows"][0]["runs"] == []
    assert next(g for g in over["groups"] if g["group"] == "a")["unanimity"]["k"] == N - 1


def test_what_cannot_be_read_is_named_and_the_rest_answers(world: World) -> None:
    first, second, third, _ = world.runs
    attempt = next(a for a in world.store.attempts(third) if a.device == "a")
    path = world.store.artefacts.path(attempt.artefacts["output-0"].sha256)
    path.chmod(0o644)
    path.write_bytes(b"rot")
    loaded = load_across(world.store, first)
    (problem,) = loaded.problems
    assert problem["what"] == f"cnn.int8@a/litert of {third}"
    assert "E-ARTEFACT-CORRUPT" in problem["problem"]
    assert [c.id for c, _ in loaded.sets[0].rows][-1] == "cnn.int8@b/litert"
    database = sqlite3.connect(world.folder / "store" / "assay.db")
    with database:
        database.execute("UPDATE run SET frozen = '{}' WHERE id = ?", (second,))
    database.close()
    loaded = load_across(world.store, first)
    assert {p["what"] for p in loaded.problems} == {second, f"cnn.int8@a/litert of {third}"}
    assert f"no answer: {second}" in text(alike(loaded))


def test_a_store_without_answers_says_so(tmp_path: Path) -> None:
    with (
        Store.open(tmp_path / "store") as store,
        pytest.raises(NotAvailableError, match="E-VARIANCE-EMPTY"),
    ):
        load_across(store, None)


def test_the_command_asks_the_same(world: World) -> None:
    folder = world.folder / "store"
    done = assay("variance", world.runs[0], "--across-runs", "--json", store=folder)
    assert (done.code, done.err) == (0, "")
    with Store.open(folder, readonly=True) as store:
        assert done.json == json.loads(json.dumps(alike(load_across(store, world.runs[0]))))
    listed = assay("variance", "--across-runs", "--pair", "a", "a", "--samples", "1", store=folder)
    assert listed.code == 0
    assert "7       yes" in listed.out
    none = assay("variance", "--pair", "a", "b", "--samples", "0", "--json", "--across-runs",
                 store=folder)  # fmt: skip
    assert all(p["samples"] == [] for s in none.json["sets"] for p in s["pairs"])
    assay("variance", "--samples", "3", store=folder).refused(2, "E-USAGE", "--samples")
    assay("variance", "--by", "slice", "--samples", "3", store=folder).refused(2, "E-USAGE")
