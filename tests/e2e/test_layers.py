"""`assay layers` as a user runs it: two kernel sets, or two plans, of one runtime on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Done, assay
from tests.support.isa import PAIRS, kind_here
from tests.support.tiny import MODELS, Tiny

TFLITE = [
    {"name": "lite", "runtime": "litert"},
    {"name": "ref", "runtime": "litert", "kernels": "reference"},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = Tiny(tmp_path_factory.mktemp("layers"))
    files = [{"name": n, "path": str(MODELS / f"digits_cnn.{n}.tflite")} for n in ("int8",)]
    files.append({"name": "u8s8", "path": str(MODELS / "digits_cnn.u8s8.onnx"), "layout": "nchw"})
    tiny.matrix["models"][0]["files"] = files
    tiny.matrix["runtimes"] = [
        *TFLITE,
        {"name": "ort", "runtime": "onnxruntime"},
        {"name": "ort2", "runtime": "onnxruntime", "threads": 2},
    ]
    tiny.inputs["limit"] = 60
    assert assay("run", tiny.write(), store=tiny.folder / "store").code in (0, 5)
    return tiny.folder / "store"


def layers(store: Path, a: str, b: str, *options: str) -> Done:
    return assay("layers", a, b, *options, store=store)


@pytest.fixture(scope="module")
def found(store: Path) -> Any:
    return layers(store, "bench/lite", "bench/ref", "--json").json


def test_other_kernels_are_localised(found: Any) -> None:
    assert (found["schema"], found["answer"]) == ("assay.layers/1", "operator")
    assert (found["model"], found["file"], found["inputs"]) == ("cnn", "int8", "digits")
    assert found["samples_differing"]["n"] == 60
    assert 0 < found["samples_differing"]["k"] < 60
    assert len(found["samples"]) == 8
    assert [found[side]["reproduced"] for side in ("a", "b")] == [True, True]
    assert found["first"] == found["guilty"][0]
    operators = found["operators"]
    assert [o["index"] for o in operators if o["guilty"]] == found["guilty"]
    assert {operators[i]["kind"] for i in found["guilty"]} <= {"CONV_2D", "FULLY_CONNECTED"}
    assert all(o["alone_as_in_model"] for o in operators)
    assert all(operators[i]["local"]["max_lsb"] == 1 for i in found["guilty"])
    first = operators[found["first"]]
    assert found["headline"].startswith(
        f"first diverging operator: #{first['index']} {first['kind']} '{first['name']}' ("
    )


def test_the_verdict_is_the_first_line_and_each_operator_has_one(store: Path, found: Any) -> None:
    told = layers(store, "bench/lite", "bench/ref", "--taps").out.splitlines()
    assert told[0] == found["headline"]
    assert len(told) == 4 + len(found["operators"])
    assert sum(line.endswith("guilty") for line in told[3:-1]) == len(found["guilty"])
    # Layers are compared with a parent of their own format only.
    assert told[-1] == (
        "no comparison with FP32: its FP32 parent is a file of another format (onnx, not tflite);"
        " the matrix may name its `fp32_twin`"
    )


def test_under_onnx_runtime_the_optimised_graph_is_tapped(store: Path) -> None:
    found = layers(store, "bench/ort", "bench/ort2", "--taps", "--json").json
    assert found["no_taps"] is None
    taps = found["taps"]["taps"]
    assert taps[0]["kind"] == "input"
    assert {"QLinearConv", "QGemm"} <= {tap["kind"] for tap in taps}
    # Names of the parent's own tensors, whatever the optimiser called those of its graph.
    assert [t["twin"] for t in taps if t["kind"] == "QLinearConv"] == ["01_relu", "03_relu"]
    # A CPU that adds pairs in int16 leaves what the file's int8 weights say, and that is its name.
    findings = {finding["name"] for finding in found["taps"]["findings"]}
    assert findings == ({"unsound operator"} if kind_here() == PAIRS else set())
    assert kind_here() == PAIRS or all(tap["local"]["sqnr_db"] > 20 for tap in taps[1:])
    assert found["lineage"]["verdict"] == "nearest-step"


def test_threads_change_nothing(store: Path) -> None:
    found = layers(store, "bench/ort", "bench/ort2", "--json").json
    assert (found["answer"], found["first"], found["guilty"]) == ("equal", None, [])
    assert found["plan"] is None
    assert found["samples_differing"] == {"k": 0, "n": 60}


@pytest.mark.parametrize(
    ("a", "b", "options", "code", "error"),
    [
        ("bench/lite", "bench/nothing", (), 2, "E-LAYERS-ROW"),
        ("bench/lite", "bench/ort", (), 5, "E-LAYERS-ANSWER"),
        ("bench/lite", "bench/ref", ("--model", "*.u8s8"), 5, "E-LAYERS-ANSWER"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    store: Path, a: str, b: str, options: Any, code: int, error: str
) -> None:
    layers(store, a, b, *options).refused(code, error)


def test_of_several_files_one_is_chosen(tmp_path: Path) -> None:
    tiny = Tiny(tmp_path)
    path = str(MODELS / "digits_cnn.int8.tflite")
    tiny.matrix["models"][0]["files"] = [{"name": n, "path": path} for n in ("one", "two")]
    tiny.matrix["models"][0]["fp32_twin"] = str(MODELS / "digits_cnn.fp32.tflite")
    tiny.matrix["runtimes"] = TFLITE
    tiny.inputs["limit"] = 60
    assay("run", tiny.write(), store=tmp_path / "store")
    store = tmp_path / "store"
    layers(store, "bench/lite", "bench/ref").refused(2, "E-LAYERS-MODEL", "cnn.one, cnn.two")
    options = ("--model", "cnn.two", "--samples", "2", "--taps", "--json")
    found = layers(store, "bench/lite", "bench/ref", *options).json
    assert (found["file"], found["answer"]) == ("two", "operator")
    # The twin of the ONNX parent, which the answers are compared with.
    assert found["no_taps"] is None
    assert {"CONV_2D", "FULLY_CONNECTED"} <= {tap["kind"] for tap in found["taps"]["taps"]}
    assert (found["lineage"]["verdict"], found["lineage"]["within"]) == ("nearest-step", 21456)
    told = layers(store, "bench/lite", "bench/ref", *options[:-1]).out
    assert "\n  lineage nearest-step: 21456 of 21456 weights within half a step" in told
    assert (found["taps"]["row"], found["taps"]["findings"]) == ("bench/lite", [])
    kinds = [tap["kind"] for tap in found["taps"]["taps"]]
    assert kinds == ["input", *(o["kind"] for o in found["operators"])]
    assert all(tap["local"]["sqnr_db"] > 20 for tap in found["taps"]["taps"][1:])


def test_a_device_in_use_is_not_disturbed(store: Path) -> None:
    from orchestrator.coordinator.reservations import Reservations
    from orchestrator.store.database import Store

    with Store.open(store, readonly=True) as opened:
        from orchestrator.runs.snapshot import load_run

        device = load_run(opened.frozen(opened.run().id)).inventory.device("bench")
    with Reservations(store) as reservations, reservations.of(device):
        layers(store, "bench/lite", "bench/ref").refused(3, "E-DEVICE-IN-USE")
