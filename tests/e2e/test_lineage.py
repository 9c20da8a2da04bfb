"""`assay lineage`, and what a run says of a file whose parent is not its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import jsonschema
import numpy as np
import onnx
from onnx import numpy_helper

from orchestrator.analysis.document import schema
from tests.support.cli import assay
from tests.support.tiny import MODELS, Tiny


def test_a_name_proves_nothing(tmp_path: Path) -> None:
    int8, true = MODELS / "digits_cnn.int8.tflite", MODELS / "digits_cnn.fp32.onnx"
    false = tmp_path / true.name
    shutil.copy(MODELS / "digits_ds.fp32.onnx", false)
    for parent, verdict in ((true, "nearest-step"), (false, "unrelated")):
        done = assay("lineage", int8, parent, "--json")
        assert (done.code, done.err) == (0, "")
        got = done.json
        assert (got["schema"], got["verdict"]) == ("assay.lineage/1", verdict)
        assert got["fp32"]["path"] == str(parent)
        weights = [m for m in got["table"] if m["role"] == "weight"]
        assert (got["tensors"], got["weights"]) == (4, 21456)
        assert [len(weights), sum(m["n"] for m in weights)] == [4, 21456]


def test_text_and_refusals(tmp_path: Path) -> None:
    int8, fp32 = MODELS / "digits_cnn.int8.tflite", MODELS / "digits_cnn.fp32.onnx"
    done = assay("lineage", int8, fp32)
    assert done.code == 0
    assert done.out.splitlines() == [
        "nearest-step: 21456 of 21456 weights within half a step, worst 0.49999 steps",
        "  4 of 4 weight tensors matched, 4 of 4 bias tensors within half a step",
    ]
    turned = assay("lineage", fp32, int8)
    assert (turned.code, turned.out.startswith("not-fp32: ")) == (0, True)
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"\0garbage" * 99)
    assay("lineage", int8, garbage).refused(2, "E-MODEL-UNREADABLE", str(garbage))
    assay("lineage", tmp_path / "none.tflite", fp32).refused(2, "E-MODEL-UNREADABLE", "none.tflite")


def tuned(path: Path) -> Path:
    """The FP32 parent after some more training, as it were."""
    model = onnx.load(MODELS / "digits_cnn.fp32.onnx")
    random = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            moved = (values + random.normal(0, 0.1 * values.std(), values.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    onnx.save(model, path)
    return path


def test_a_run_carries_the_lineage_of_each_file(tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    report = tmp_path / "report.html"
    run = ("run", tiny.write(), "--report", report)
    done = assay(*run, "--json", store=tmp_path / "store")
    document = done.json
    jsonschema.validate(document, schema())
    told = document["lineage"]["cnn.u8s8"]
    assert (told["verdict"], told["matched"], told["within"]) == ("nearest-step", 4, 21456)
    assert '<h3 id="lineage">' in report.read_text()
    variance = assay("variance", "--json", store=tmp_path / "store").json
    assert variance["lineage"] == document["lineage"]
    assert "lineage" not in assay("signoff", store=tmp_path / "store").out
    # Where FP32 is compared with, it is said also when there is nothing against it.
    shown = assay("variance", "--by", "device", store=tmp_path / "store").out
    assert "\n  lineage nearest-step: 21456 of 21456 weights" in shown

    tiny.matrix["models"][0]["fp32"]["path"] = str(tuned(tmp_path / "tuned.onnx"))
    tiny.write()
    done = assay(*run, store=tmp_path / "store")
    line = next(x for x in done.out.splitlines() if "lineage" in x)
    assert line.startswith("cnn.u8s8: lineage derived: correlation 0.99")
    assert "fine-tuned" in report.read_text()
    asked = assay("variance", "--by", "runtime", "--json", store=tmp_path / "store").json
    assert [one["lineage"]["verdict"] for one in asked["sets"]] == ["derived"]
    told = assay("sql", "SELECT lineage FROM rows", "--json", store=tmp_path / "store").json
    assert told["rows"] == [["derived"]]


def test_a_twin_is_checked_as_a_parent_and_has_a_lineage_of_its_own(tmp_path: Path) -> None:
    """Answers are compared with ONNX weights that were trained on, layers with the true ones."""
    tiny = Tiny(tmp_path)
    model, store = tiny.matrix["models"][0], tmp_path / "store"
    model["files"] = [{"name": "int8", "path": str(MODELS / "digits_cnn.int8.tflite")}]
    model["fp32"]["path"] = str(tuned(tmp_path / "tuned.onnx"))
    model["fp32_twin"] = str(MODELS / "digits_ds.fp32.tflite")
    tiny.matrix["runtimes"] = [{"name": "lite", "runtime": "litert"}]
    assay("run", tiny.write(), store=store).refused(2, "E-FP32-PARENT", "digits_ds.fp32.tflite")
    model["fp32_twin"] = str(MODELS / "digits_cnn.fp32.tflite")
    assert assay("run", tiny.write(), store=store).code in (0, 5)
    assert "\n  lineage derived: " in assay("variance", "--by", "device", store=store).out
    assert "\n  lineage nearest-step: " in assay("variance", "--by", "layer", store=store).out
