"""`assay explain` on runs of the tiny matrix: real differences of real kernels."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from orchestrator.store import fingerprints
from orchestrator.store.database import Store
from tests.support.cli import assay
from tests.support.tiny import MODELS, Tiny


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two units that are alike, three ways to run a TFLite file; one runtime is not there."""
    folder = tmp_path_factory.mktemp("explain")
    tiny = Tiny(folder / "matrix")
    tiny.file.update(name="int8", path=str(MODELS / "digits_cnn.int8.tflite"), layout="same")
    tiny.matrix["inputs"][0]["limit"] = 200
    python = {"litert": sys.executable}
    tiny.devices = [
        tiny.device("one", **{"class": "host"}, python=python),
        tiny.device("two", **{"class": "host"}, python=python),
    ]
    tiny.matrix["devices"] = [{"name": "one"}, {"name": "two"}]
    tiny.matrix["runtimes"] = [
        {"name": "lite", "runtime": "litert"},
        {"name": "ref", "runtime": "litert", "kernels": "reference"},
        {"name": "old", "runtime": "tflite-runtime"},
    ]
    tiny.policy["reference"] = [{"device": "one", "runtime": "lite"}]
    done = assay("run", tiny.write(), store=folder / "store")
    assert done.code in (0, 5), done.err
    return folder / "store"


def explain(store: Path, *arguments: str, code: int = 0) -> list[dict[str, object]]:
    run = assay("status", "--json", store=store).json["runs"][0]["id"]
    done = assay("explain", *arguments, "--run", run, "--json", store=store)
    assert done.code == code, done.err
    assert done.json["schema"] == "assay.explain/2"
    pairs: list[dict[str, object]] = done.json["pairs"]
    return pairs


def test_other_kernels_round_otherwise(store: Path) -> None:
    (found,) = explain(store, "one/lite", "one/ref")
    assert (found["mechanism"], found["factors"]) == ("rounding", ["kernels"])
    assert found["changed"] == {"kernels": ["default", "reference"]}
    assert isinstance(found["difference"], dict)
    assert 0 < found["difference"]["by_one_step"] <= found["difference"]["elements_different"]


def test_two_devices_are_compared_under_each_runtime_of_both(store: Path) -> None:
    found = explain(store, "one", "two")
    assert [(p["a"], p["b"]) for p in found] == [("one/lite", "two/lite"), ("one/ref", "two/ref")]
    assert {p["mechanism"] for p in found} == {"identical"}


def test_a_row_that_did_not_answer_is_not_compared(store: Path) -> None:
    run = assay("status", "--json", store=store).json["runs"][0]["id"]
    done = assay("explain", "one/lite", "one/old", "--run", run, store=store)
    assert done.code == 5
    assert "not compared: one/old has no answer to cnn.int8" in done.out
    assert "no Python for tflite-runtime" in done.out


def test_the_page_and_the_line_say_the_same(store: Path) -> None:
    run = assay("status", "--json", store=store).json["runs"][0]["id"]
    page = assay("explain", "one/lite", "one/ref", "--run", run, store=store).out.splitlines()
    brief = assay(
        "explain", "one/lite", "one/ref", "--run", run, "--brief", store=store
    ).out.splitlines()
    assert [page[0]] == brief
    assert brief[0].startswith("cnn.int8 one/lite / one/ref: rounding × kernels (possible)")
    assert "95 % CI" in brief[0]
    assert [line.split()[0] for line in page[1:]] == [
        *("because", "fix", "differs", "bits", "codes", "right", "attempts")
    ]


def test_probes_name_what_the_kernels_do_otherwise(store: Path) -> None:
    """Only of the operators that the model has, and only of the fingerprints that fit."""
    inventory = store.parent / "matrix" / "inventory.yaml"
    sets = ("--runtime", "litert/default", "--runtime", "litert/reference")
    done = assay("fingerprint", "one", "-i", inventory, *sets, store=store)
    assert done.code == 0, done.err
    (found,) = explain(store, "one/lite", "one/ref")
    assert (found["mechanism"], found["confidence"]) == ("rounding", "likely")
    because = found["because"]
    assert isinstance(because, list)
    assert "probes of CONV_2D int8 per-channel: half-even / double" in because
    assert not [line for line in because if "uint8" in line or "HARD_SWISH" in line]
    # The other unit was not asked, and what it was not asked is not claimed of it.
    (other,) = explain(store, "two/lite", "two/ref")
    assert other["confidence"] == "possible"


def test_layers_names_the_operator_where_they_part(store: Path) -> None:
    (found,) = explain(store, "one/lite", "one/ref", "--layers")
    layers = found["layers"]
    assert isinstance(layers, dict)
    assert layers["schema"] == "assay.layers/1"
    assert layers["guilty"]
    page = assay("explain", "one", "two", "--layers", store=store).out
    assert "layers" not in page, "nothing is looked for where nothing differs"


def test_the_table_of_pairs_has_a_cause_in_every_line(store: Path) -> None:
    shown = [x for x in assay("variance", store=store).out.splitlines() if " / " in x]
    assert shown
    assert all("; rounding × kernels (" in line for line in shown)
    causes = assay("variance", "--json", store=store).json["causes"]
    assert [c["factors"] for c in causes] == [["kernels"]] * len(shown)


def test_names_that_are_none_are_refused(store: Path) -> None:
    run = assay("status", "--json", store=store).json["runs"][0]["id"]
    assay("explain", "one", "three", "--run", run, store=store).refused(
        2, "E-ROW-UNKNOWN", "two/ref"
    )
    wrong = assay("explain", "one", "two", "--run", run, "-m", "no*", store=store)
    wrong.refused(2, "E-MODEL-NAME", "cnn.int8")
    assay("explain", "one", "two", "--run", "19990101", store=store).refused(2, "E-RUN-UNKNOWN")


def test_a_fingerprint_of_another_build_is_not_used_and_said_to_be_stale(
    store: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    with Store.open(copy) as opened:
        run = opened.run()
        attempt = next(a for a in opened.attempts(run.id) if a.device == "two" and a.environment)
        facts = opened.environment_data(str(attempt.environment))
        facts["runtime"]["native_sha256"] = "c0ffee"
        document = {"sha256": "f" * 64, "families": {}, "taken_on": facts}
        fingerprints.save(opened, "two", "litert/default", "2", facts, document)
    (found,) = explain(copy, "two/lite", "one/ref")
    because = found["because"]
    assert isinstance(because, list)
    assert because[-1].startswith("the fingerprint of two is stale: another build of runtime")
    assert because[-1].endswith("(fix: assay fingerprint two)")


def test_what_is_damaged_is_named_and_the_rest_still_answers(tmp_path: Path) -> None:
    """One file's answer is damaged, and of another one a cell that is only counted."""
    tiny, store = Tiny(tmp_path / "matrix"), tmp_path / "store"
    names = ("u8s8", "u8s8_rr")
    tiny.matrix["models"][0]["files"] = [
        {"name": name, "path": str(MODELS / f"digits_cnn.{name}.onnx"), "layout": "nchw"}
        for name in names
    ]
    tiny.devices.append(tiny.device("spare"))
    tiny.matrix["conditions"] = ["clean", "spot:7@1"]
    done = assay("run", tiny.write(), store=store)
    assert done.code in (0, 5), done.err
    whole = assay("explain", "bench", "spare", "--json", store=store)
    assert whole.code == 0, whole.err
    assert [p["file"] for p in whole.json["pairs"]] == list(names)
    assert whole.json["damaged"] == []

    def spoil(condition: str, file: str) -> set[str]:
        """Both devices gave these bytes, so both cells lose them."""
        with Store.open(store, readonly=True) as opened:
            attempts = {a.id: a for a in opened.attempts(opened.run(None).id)}
            cells = [c for c in opened.cells(opened.run(None).id) if c.file == file]
            hit = {c.id: c.attempt for c in cells if c.condition == condition}
            for attempt in hit.values():
                blob = attempts[str(attempt)].artefacts["output-0"]
                opened.artefacts.path(blob.sha256).write_bytes(b"?" * blob.size)
        return set(hit)

    counted = spoil("spot:7@1", "u8s8_rr")
    told = assay("explain", "bench", "spare", "--json", store=store)
    assert told.code == 3
    assert told.json["pairs"] == whole.json["pairs"]
    assert {d["what"] for d in told.json["damaged"]} == counted

    asked = spoil("clean", "u8s8")
    told = assay("explain", "bench", "spare", "--json", store=store)
    assert told.code == 3
    assert [p["file"] for p in told.json["pairs"]] == ["u8s8_rr"]
    (missing,) = told.json["not_compared"]
    assert missing["what"].startswith("bench/ort has no answer to cnn.u8s8: ")
    assert missing["what"].endswith("[E-ARTEFACT-CORRUPT]")
    assert {d["error_id"] for d in told.json["damaged"]} == {"E-ARTEFACT-CORRUPT"}
    assert {d["what"] for d in told.json["damaged"]} - counted < asked
    page = assay("explain", "bench", "spare", store=store)
    assert (page.code, "Traceback" in page.err) == (3, False)
    assert "cnn.u8s8_rr bench/ort / spare/ort: identical (20 samples)" in page.out
    assert all(
        f"{d['what']} cannot be read: {d['error']}" in page.out for d in told.json["damaged"]
    )


def test_the_form_of_older_versions_works_for_one_release_with_a_word(store: Path) -> None:
    new = assay("explain", "one/lite", "one/ref", "--json", store=store)
    for run in ("-", new.json["run"]):
        old = assay("explain", run, "one/lite", "one/ref", "--json", store=store)
        assert old.json == new.json
        assert "explain A B [--run RUN]" in old.err
    assay("explain", "one/lite", store=store).refused(2, "E-USAGE", "two rows")
