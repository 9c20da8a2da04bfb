"""`assay variance --by` and `--pair` on a real finished run, whole and damaged."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.analysis.rows_groups import grouped
from orchestrator.analysis.rows_load import Loaded, load
from orchestrator.analysis.rows_pairs import paired
from orchestrator.analysis.rows_slices import sliced
from orchestrator.errors import InputError, NotAvailableError
from orchestrator.reports.views import render
from orchestrator.store.database import Store
from tests.support.cli import assay
from tests.support.tiny import MODELS, QUICKSTART, Tiny

N = 60


@dataclass(frozen=True)
class Farm:
    store: Path
    document: dict[str, Any]
    labels: Any

    def row(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = next(r for r in self.document["rows"] if r["id"] == id)
        return found


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """Two units; the CNN's TFLite file in default and reference kernels, which round otherwise."""
    folder = tmp_path_factory.mktemp("views")
    tiny = Tiny(folder / "matrix")
    tiny.folder.mkdir(parents=True)
    digits = np.load(QUICKSTART / "digits_8x8.npz")
    ink = np.where(digits["x"].mean((1, 2, 3)) > 0.3, "much", "little")
    np.savez(tiny.folder / "d.npz", x=digits["x"], y=digits["y"], ink=ink, digit=digits["y"])
    tiny.inputs.update(path=str(tiny.folder / "d.npz"), slices=["ink", "digit"], limit=N)
    tiny.devices.append(tiny.device("spare"))
    tiny.file.update(name="int8", path=str(MODELS / "digits_cnn.int8.tflite"), layout="same")
    tiny.matrix["runtimes"] = [
        {"name": "lite", "runtime": "litert"},
        {"name": "ref", "runtime": "litert", "kernels": "reference"},
    ]
    done = assay("run", tiny.write(), "--json", store=folder / "store")
    assert done.out, done
    return Farm(folder / "store", done.json, digits["y"][:N])


@pytest.fixture(scope="module")
def loaded(farm: Farm) -> Loaded:
    with Store.open(farm.store, readonly=True) as store:
        found = load(store, None)
    assert found.run["id"] == farm.document["run"]["id"]
    assert found.problems == ()
    return found


def text(document: dict[str, Any]) -> str:
    stream = io.StringIO()
    render(document, Console(file=stream, width=200))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("by", "groups"),
    [("device", ["bench", "spare"]), ("class", ["class-bench", "class-spare"]),
     ("runtime", ["lite", "ref"])],
)  # fmt: skip
def test_rows_by_what_answered(farm: Farm, loaded: Loaded, by: str, groups: list[str]) -> None:
    (one,) = grouped(loaded, by)["sets"]
    assert (one["model"], one["file"], one["inputs"], one["n"]) == ("cnn", "int8", "digits", N)
    assert [g["group"] for g in one["groups"]] == groups
    assert sorted(id for g in one["groups"] for id in g["rows"]) == [r["id"] for r in one["rows"]]
    for row in one["rows"]:
        kept = farm.row(row["id"])
        assert row["accuracy"] == kept["accuracy"]
        assert row["fp32"] == kept["fp32"]
        assert row["attempts"] == kept["attempts"]
        assert row["head"] == "logits"
        assert row["calibration"]["ece"]["n"] == row["confidence"]["n"] == N
        assert row["calibration"]["nll"]["value"] > 0
        assert row["kld"]["value"] > 0
    assert {r["id"]: r["same_as"] for r in one["rows"]} == {
        "cnn.int8@bench/lite": None,
        "cnn.int8@bench/ref": None,
        "cnn.int8@spare/lite": "cnn.int8@bench/lite",
        "cnn.int8@spare/ref": "cnn.int8@bench/ref",
    }
    (kept,) = farm.document["fleet"]
    assert one["fleet"]["instability"] == kept["instability"]
    assert one["fleet"]["unanimity"] == kept["unanimity"]
    assert one["fleet"]["worst_pair"]["disagreement"] == kept["worst_pair"]["disagreement"]
    assert one["fp32"]["accuracy"] == one["rows"][0]["fp32"]["accuracy"]


def test_slices_of_the_input_set_reach_the_answer(farm: Farm, loaded: Loaded) -> None:
    (one,) = sliced(loaded)["sets"]
    assert one["columns"] == ["digit", "ink"]
    for row in one["rows"]:
        digits = {s["value"]: s for s in row["slices"] if s["column"] == "digit"}
        ink = [s for s in row["slices"] if s["column"] == "ink"]
        assert {v: s["n"] for v, s in digits.items()} == {
            str(v): int((farm.labels == v).sum()) for v in np.unique(farm.labels)
        }
        assert {s["value"] for s in ink} == {"little", "much"}
        for column in (list(digits.values()), ink):
            assert sum(s["n"] for s in column) == N
            kept = farm.row(row["id"])
            assert sum(s["accuracy"]["k"] for s in column) == kept["accuracy"]["k"]
            assert sum(s["change"]["lost"] for s in column) == kept["fp32"]["c_to_i"]
            assert sum(s["disagreement"]["k"] for s in column) == kept["fp32"]["disagreement"]["k"]


def test_a_pair_in_full(farm: Farm, loaded: Loaded) -> None:
    found = paired(loaded, "bench/ref", "bench/lite")
    (pair,) = found["sets"][0]["pairs"]
    assert (pair["a"], pair["b"]) == ("cnn.int8@bench/ref", "cnn.int8@bench/lite")
    kept = next(
        p
        for p in farm.document["pairs"]
        if {p["a"], p["b"]} == {"cnn.int8@bench/ref", "cnn.int8@bench/lite"}
    )
    assert pair["bit_exact"]["k"] == round(kept["bit_exact_rate"] * N) < N
    assert pair["max_lsb"] == kept["max_lsb"] >= 1
    assert sum(pair["lsb_histogram"].values()) == N * 10
    assert pair["kappa"]["value"] > 0.9
    assert pair["confidences"]["jsd"]["value"] > 0
    assert pair["real"]["max_abs"] > 0
    assert pair["lattices"] == {}
    assert 0 < len(pair["samples"]) <= 10
    both = paired(loaded, "class-*", "spare")
    ids = {frozenset((p["a"], p["b"])) for p in both["sets"][0]["pairs"]}
    assert len(ids) == len(both["sets"][0]["pairs"]) == 5  # all pairs but the two of bench alone


def test_the_command_prints_the_same_view_whole_and_equal_each_time(
    farm: Farm, loaded: Loaded
) -> None:
    done = assay("variance", "--by", "slice", "--json", store=farm.store)
    assert (done.code, done.err) == (0, "")
    assert done.json["schema"] == "assay.variance/1"
    assert done.json == json.loads(json.dumps(sliced(loaded)))
    pair = assay("variance", "--pair", "bench/ref", "bench/lite", store=farm.store)
    assert pair.out == text(paired(loaded, "bench/ref", "bench/lite"))


def test_people_read_the_same_numbers(farm: Farm, loaded: Loaded) -> None:
    device = text(grouped(loaded, "device"))
    row = next(line for line in device.splitlines() if "bench/lite" in line)
    kept = farm.row("cnn.int8@bench/lite")["accuracy"]
    assert f"{kept['k']}/{kept['n']}" in row
    assert "outputs taken for logits: values from" in device
    assert "within bench: instability" in device
    by_slice = text(sliced(loaded))
    assert "ink=much" in by_slice
    assert "spare/lite: bit-identical to bench/lite" in by_slice
    assert "Cohen's kappa" in text(paired(loaded, "bench/ref", "bench/lite"))


def test_wrong_questions_are_refused(farm: Farm, loaded: Loaded) -> None:
    done = assay("variance", "--pair", "bench", "nobody", store=farm.store)
    done.refused(2, "E-VARIANCE-PAIR", "'nobody'", "bench/lite")
    assay("variance", "--by", "class", "--pair", "a", "b", store=farm.store).refused(2, "E-USAGE")
    with pytest.raises(InputError, match="E-VARIANCE-PAIR"):
        paired(loaded, "bench/lite", "bench/lite")
    plain = tuple(replace(s, truth=replace(s.truth, slices={})) for s in loaded.sets)
    with pytest.raises(NotAvailableError, match="E-VARIANCE-SLICES") as refused:
        sliced(replace(loaded, sets=plain))
    assert refused.value.exit_code == 5


def test_a_damaged_output_is_named_and_the_rest_answers(farm: Farm, tmp_path: Path) -> None:
    shutil.copytree(farm.store, tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        attempt = next(a for a in store.attempts(farm.document["run"]["id"]) if "ref" in a.cell)
        path = store.artefacts.path(attempt.artefacts["output-0"].sha256)
        path.chmod(0o644)
        path.write_bytes(b"rot")
        loaded = load(store, None)
        assert len(loaded.problems) == 2
        for problem in loaded.problems:
            assert problem["what"].endswith("ref")
            assert "E-ARTEFACT-CORRUPT" in problem["problem"]
        (one,) = grouped(loaded, "device")["sets"]
        assert [r["id"] for r in one["rows"]] == ["cnn.int8@bench/lite", "cnn.int8@spare/lite"]
        assert len(paired(loaded, "bench", "spare")["sets"][0]["pairs"]) == 1
        assert f"no answer: {loaded.problems[0]['what']}" in text(grouped(loaded, "class"))
        for a in store.attempts(farm.document["run"]["id"]):
            store.artefacts.place(a.artefacts["output-0"].sha256).unlink(missing_ok=True)
        with pytest.raises(NotAvailableError, match="E-VARIANCE-EMPTY"):
            load(store, None)
