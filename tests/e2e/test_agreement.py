"""`assay agreement` and `assay history` over a real store: three runs of a tiny matrix."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.analysis.agreement import agreement
from orchestrator.analysis.history import history as told
from orchestrator.reports.agreement import render
from orchestrator.store.database import Store
from tests.support.cli import assay
from tests.support.judged import Judged
from tests.support.sealed import reseal, reseal_rows
from tests.support.tiny import MODELS, Tiny


@dataclass(frozen=True)
class Farm:
    """``runs``: the first with all settings, the second again, the third with other labels."""

    store: Path
    runs: tuple[str, str, str]
    first: Judged


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    folder = tmp_path_factory.mktemp("agreement")
    tiny, store = Tiny(folder / "matrix"), folder / "store"
    tiny.devices = [tiny.device(name, **{"class": "bench"}) for name in ("bench-1", "bench-2")]
    tiny.file.update(name="int8", path=str(MODELS / "digits_ds.int8.tflite"), layout="same")
    tiny.matrix["models"][0].update(name="ds", fp32=None)
    tiny.inputs["path"] = tiny.inputs["path"].replace("8x8", "32x32")
    tiny.matrix["runtimes"] = [
        {"name": "lite", "runtime": "litert"},
        {"name": "lite2", "runtime": "litert", "threads": 2},
        {"name": "ref", "runtime": "litert", "kernels": "reference"},
    ]
    tiny.matrix["conditions"] = ["clean", "repeat:3"]
    tiny.policy["reference"] = [{"device": "bench-1", "runtime": "lite"}]
    done = assay("run", tiny.write(), "--json", store=store)
    first = Judged(done, store)
    again = assay("run", tiny.write(), "--json", "--select", "*bench-1*lite", store=store)
    x = np.load(tiny.inputs["path"])
    np.savez(folder / "other.npz", x=x["x"], y=(x["y"] + 1) % 10)
    tiny.inputs["path"] = str(folder / "other.npz")
    other = assay("run", tiny.write(), "--json", "--select", "*bench-1*clean-lite", store=store)
    runs = tuple(d.json["run"]["id"] for d in (done, again, other))
    assert len(runs) == 3
    return Farm(store, runs, first)


@pytest.fixture
def copy(farm: Farm, tmp_path: Path) -> Path:
    return Path(shutil.copytree(farm.store, tmp_path / "store"))


def asked(store: Path, run: str | None = None, **options: Any) -> Any:
    """The document, as the command makes it, without a process for each question."""
    with Store.open(store, readonly=True) as opened:
        return json.loads(json.dumps(agreement(opened, run, **options), allow_nan=False))


def history(store: Path, name: str) -> Any:
    with Store.open(store, readonly=True) as opened:
        return json.loads(json.dumps(told(opened, name), allow_nan=False))


def test_one_run_by_hand(farm: Farm) -> None:
    document = asked(farm.store, farm.runs[0])
    assert document["schema"] == "assay.agreement/1"
    (study,) = document["studies"]
    assert (study["model"], study["file"], len(study["raters"])) == ("ds", "int8", 12)
    levels = [(a["level"], a["n"], a["alike"]["k"], a["identical"]["k"]) for a in study["between"]]
    assert levels == [("units", 20, 20, 20)] * 3, "one machine under two names"
    assert [(w["n"], w["identical"]["k"]) for w in study["within"]] == [(8, 8)] * 6
    passes = [(p["different"]["k"], p["different"]["n"]) for p in study["passes"]]
    assert passes == [(0, 16)] * 6

    default = farm.first.output("bench-1-ds.int8-digits-clean-lite")
    reference = farm.first.output("bench-1-ds.int8-digits-clean-ref")
    unlike = default != reference
    moved = {m["factor"]: m for m in study["matched"]}
    assert moved.keys() == {"unit", "threads", "kernels"}
    for factor in ("unit", "threads"):
        assert moved[factor]["identical"] == moved[factor]["pairs"]
        assert (moved[factor]["bits"]["k"], moved[factor]["elements"]["different"]) == (0, 0)
    kernels = moved["kernels"]
    assert (kernels["pairs"], kernels["identical"], kernels["unsteady"]) == (2, 0, 0)
    assert kernels["bits"]["k"] == unlike.any(axis=1).sum() > 0
    assert kernels["elements"]["different"] == 2 * unlike.sum()
    assert kernels["elements"]["compared"] == 2 * unlike.size
    assert {kernels["worst"][side] for side in ("a_value", "b_value")} == {"default", "reference"}


def test_reference_and_truth_are_those_of_the_run(farm: Farm) -> None:
    (study,) = asked(farm.store, farm.runs[0])["studies"]
    names = {r["attempt"]: r["name"] for r in study["raters"]}
    assert names[study["reference"]].startswith("bench-1/litert")
    assert study["no_reference"] is None
    assert len(study["against_reference"]) == 5
    rows = {(r["device"], r["runtime"]): r for r in farm.first.document["rows"]}
    for against in study["against_truth"]:
        accuracy = rows["bench-1", "lite"]["accuracy"]
        assert against["agree"]["k"] == accuracy["k"]
        assert against["kappa"]["low"] <= against["kappa"]["value"] <= against["kappa"]["high"]


def test_across_runs_repeats_are_found_and_other_labels_refused(farm: Farm) -> None:
    document = asked(farm.store, across=True)
    assert document["runs"] == sorted(farm.runs)
    (study,) = document["studies"]
    longest = max(study["within"], key=lambda w: (len(w["attempts"]), w["n"]))
    assert (len(longest["attempts"]), longest["n"]) == (5, 8), "3 clean and 2 repeat cells"
    three = [w for w in study["within"] if w["n"] == 20]
    assert [(len(w["attempts"]), w["alike"]["k"]) for w in three] == [(3, 20)]
    assert study["against_truth"] == []
    (refused,) = document["refused"]
    assert refused["what"] == "ds.int8 on digits against the truth"
    assert "2 different sets of labels" in refused["why"]


def retask(store: Path, run: str, **task: Any) -> None:
    """The run as if its matrix had named another task."""
    with closing(sqlite3.connect(store / "assay.db")) as database, database:
        (text,) = database.execute("SELECT frozen FROM run WHERE id = ?", (run,)).fetchone()
        frozen = json.loads(text)
        frozen["matrix"]["models"][0]["task"] = task
        database.execute("UPDATE run SET frozen = ? WHERE id = ?", (json.dumps(frozen), run))
    reseal_rows(store, "run")


def test_other_names_for_the_classes_are_another_study(farm: Farm, copy: Path) -> None:
    retask(copy, farm.runs[1], type="classification", labels=list("zyxwvutsrq"))
    document = asked(copy, across=True)
    assert len(document["studies"]) == 2
    assert any("other names for the classes" in r["why"] for r in document["refused"])


def test_every_task_and_labels_that_do_not_fit_it(farm: Farm, copy: Path) -> None:
    retask(copy, farm.runs[0], type="anomaly", score="max_output", threshold=-1e9)
    retask(copy, farm.runs[1], type="anomaly", score="mse_to_input", threshold=0.1)
    retask(copy, farm.runs[2], type="regression", tolerance=1e9)
    anomaly, elsewhere, regression = (asked(copy, run) for run in farm.runs)
    (study,) = anomaly["studies"]
    assert {a["alike"]["k"] for a in study["between"]} == {20}
    assert {a["kappa"]["value"] for a in study["between"]} == {None}, "always anomalous"
    assert "one integer of 0..1" in anomaly["refused"][0]["why"], "digits are no truth for it"
    assert (study["against_truth"], elsewhere["studies"][0]["raters"]) == ([], [])
    assert all("cannot be compared with input" in r["why"] for r in elsewhere["refused"])
    assert "labels have shape (20,), outputs (20, 10)" in regression["refused"][0]["why"]


def test_models_are_chosen_by_glob(farm: Farm) -> None:
    assert len(asked(farm.store, farm.runs[0], model="ds.*")["studies"]) == 1
    done = assay("agreement", "--model", "nope", store=farm.store)
    done.refused(5, "E-AGREEMENT-NONE", "'nope'", farm.runs[2])


def test_the_text_says_what_the_json_says(farm: Farm) -> None:
    done = assay("agreement", farm.runs[0], "--across-runs", store=farm.store)
    assert done.code == 0
    assert "not compared: ds.int8 on digits against the truth" in done.out
    assert "units of a class  bench-1, bench-2  litert" in done.out
    assert "later passes of one attempt: 0 of 112 outputs differ from the first" in done.out
    kernels = next(x for x in done.out.splitlines() if x.strip().startswith("kernels"))
    assert "default | reference" in kernels


def test_a_damaged_answer_is_named_and_the_rest_still_answers(farm: Farm, copy: Path) -> None:
    with Store.open(copy, readonly=True) as store:
        attempts = {a.cell: a for a in store.attempts(farm.runs[0])}
        spoilt = attempts["bench-1-ds.int8-digits-clean-ref"].artefacts
        store.artefacts.path(spoilt["output-0"].sha256).write_bytes(b"spoilt")
    done = assay("agreement", farm.runs[0], "--json", store=copy)
    assert done.code == 3
    assert {d["error_id"] for d in done.json["damaged"]} == {"E-ARTEFACT-CORRUPT"}
    assert {d["what"].split()[0] for d in done.json["damaged"]} == {
        f"bench-{n}-ds.int8-digits-clean-ref" for n in (1, 2)
    }
    (study,) = done.json["studies"]
    assert len(study["raters"]) == 10
    kernels = next(m for m in study["matched"] if m["factor"] == "kernels")
    assert kernels["n"] == 8, "the repeat cells of the reference kernels are still there"
    stream = io.StringIO()
    render(done.json, Console(file=stream))
    assert stream.getvalue().count("unreadable: bench-") == 2


def test_a_damaged_run_record_is_named(farm: Farm, copy: Path) -> None:
    with closing(sqlite3.connect(copy / "assay.db")) as database, database:
        database.execute("UPDATE run SET frozen = '{}' WHERE id = ?", (farm.runs[1],))
    found = asked(copy, across=True), history(copy, "ds")
    for document in found:
        told = [(d["what"], d["error_id"]) for d in document["damaged"]]
        assert told == [(farm.runs[1], "E-FROZEN")]
        assert farm.runs[0] in document["runs"]


# History -----------------------------------------------------------------------------------------


def test_history_of_a_model_has_a_row_for_each_device(farm: Farm) -> None:
    document = history(farm.store, "ds")
    assert document["schema"] == "assay.history/1"
    assert document["runs"] == list(farm.runs)
    one, two = document["rows"]
    assert (one["device"], one["runs"], one["outcomes"]) == ("bench-1", 3, {"ok": 9})
    assert (one["questions"], one["asked_again"], one["unchanged"]) == (6, 2, 2)
    assert (two["device"], two["runs"], two["asked_again"]) == ("bench-2", 1, 0)
    assert one["first_unix"] < one["last_unix"]
    assert one["steps"] == []
    assert one["versions"].keys() == {"litert"}
    assert history(farm.store, "ds.int8")["rows"] == document["rows"]
    assert history(farm.store, "bench-2")["rows"] == [two]


def test_history_tells_what_changed_since(farm: Farm, copy: Path) -> None:
    """An update without new bytes, and new bytes without an update.

    Both are planted in the store as a later run would record them.
    """
    with Store.open(copy) as store:
        again = {a.cell: a for a in store.attempts(farm.runs[1])}
        clean = again["bench-1-ds.int8-digits-clean-lite"]
        repeat = again["bench-1-ds.int8-digits-repeat:3-lite"]
        old = store.environment_data(str(clean.environment))
        updated = store.environment({**old, "runtime": {**old["runtime"], "version": "9.9"}})
        reference = {a.cell: a for a in store.attempts(farm.runs[0])}[
            "bench-1-ds.int8-digits-repeat:3-ref"
        ]
        other = {**(repeat.result or {}), "outputs": (reference.result or {})["outputs"]}
        files = {role: reference.artefacts[role].sha256 for role in ("sample_hashes", "output-0")}
        with store.database.write() as connection:
            for change in (
                ("UPDATE attempt SET environment = ? WHERE id = ?", (updated, clean.id)),
                ("UPDATE attempt SET result = ? WHERE id = ?", (json.dumps(other), repeat.id)),
                *(
                    (
                        "UPDATE attempt_artefact SET sha256 = ? WHERE attempt = ? AND role = ?",
                        (sha256, repeat.id, role),
                    )
                    for role, sha256 in files.items()
                ),
            ):
                connection.exec_driver_sql(*change)
            for attempt in (clean.id, repeat.id):
                reseal(connection, attempt)
    (row,) = history(copy, "bench-1")["rows"]
    assert (row["asked_again"], row["unchanged"]) == (2, 1)
    assert row["versions"] == {"litert": [old["runtime"]["version"], "9.9"]}
    update, back, fault = row["steps"]
    assert [update["identical"], back["identical"]] == [True, True]
    assert update["changes"] == [
        {"what": "runtime.version", "before": old["runtime"]["version"], "after": "9.9"}
    ]
    assert (fault["identical"], fault["changes"]) == (False, [])
    assert 0 < fault["different"]["k"] <= fault["different"]["n"] == 8
    text = assay("history", "bench-1", store=copy).out
    assert f"since {farm.runs[1]}: the same bytes (runtime.version" in text
    assert "nothing that is recorded changed: a fault" in text


def test_an_unknown_name_lists_the_known_ones(farm: Farm) -> None:
    assay("history", "nope", store=farm.store).refused(
        2, "E-HISTORY-NAME", "'nope'", "bench-1, bench-2, ds, ds.int8"
    )


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    assay("history", "x", "--json", store=tmp_path / "none").refused(2, "E-STORE-MISSING")
