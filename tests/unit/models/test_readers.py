"""Files of the forms that tools write, read and compared in the limited child."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as ort

from orchestrator.errors import Exit, InputError
from orchestrator.models.lineage import compare
from tests.support.flatfile import Flat
from tests.unit.models.arrays import Array, quantised


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    random = np.random.default_rng(11)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "w3": (8 * 36, 10), "b3": (10,)}
    made = {k: random.normal(0, 0.2, s).astype(np.float32) for k, s in shapes.items()}
    for i in (1, 2):
        made |= {f"{k}{i}": random.normal(0, 0.3, 8).astype(np.float32) for k in ("beta", "mean")}
        made |= {f"{k}{i}": random.uniform(0.5, 2, 8).astype(np.float32) for k in ("gamma", "var")}
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def net(path: Path, weights: Mapping[str, Array], folded: bool) -> Path:
    """Conv, BN, ReLU, depthwise Conv, BN, ReLU, Flatten, Gemm; with its BN, or folded away."""
    kept = dict(weights)
    nodes, x = [], "x"
    for i, group in ((1, 1), (2, 8)):
        inputs = [x, f"w{i}"] + (["b1"] if i == 1 else [])
        if folded:
            factor = kept[f"gamma{i}"] / np.sqrt(kept[f"var{i}"] + 1e-3)
            kept[f"w{i}"] = (kept[f"w{i}"] * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
            bias = kept["b1"] if i == 1 else np.zeros(8)
            shift = (bias - kept[f"mean{i}"]) * factor + kept[f"beta{i}"]
            kept[f"b{i}"] = shift.astype(np.float32)
            inputs = [x, f"w{i}", f"b{i}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{i}"], group=group, name=f"conv{i}"))
        x = f"c{i}"
        if not folded:
            four = [f"{k}{i}" for k in ("gamma", "beta", "mean", "var")]
            nodes.append(
                helper.make_node("BatchNormalization", [x, *four], [f"n{i}"], epsilon=1e-3)
            )
            x = f"n{i}"
        nodes.append(helper.make_node("Relu", [x], [f"r{i}"]))
        x = f"r{i}"
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "w3", "b3"], ["y"], name="gemm"))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 10, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(v, k) for k, v in kept.items() if k in used],
    )
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return path


class Calibration(ort.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._left = [{"x": random.normal(size=(1, 3, 10, 10)).astype(np.float32)}] * 2

    def get_next(self) -> Any:
        return self._left.pop() if self._left else None


@pytest.fixture(scope="module")
def parent(folder: Path, weights: dict[str, Array]) -> Path:
    """With its batch normalisations; the quantised files below have theirs folded."""
    return net(folder / "parent.onnx", weights, folded=False)


@pytest.mark.parametrize("form", [ort.QuantFormat.QDQ, ort.QuantFormat.QOperator])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", [ort.QuantType.QInt8, ort.QuantType.QUInt8])
def test_what_onnxruntime_quantises_is_nearest_step_of_the_unfolded_parent(
    folder: Path, weights: dict[str, Array], parent: Path, form: Any, per_channel: bool, kind: Any
) -> None:
    path = folder / "quantised.onnx"
    ort.quantize_static(
        net(folder / "folded.onnx", weights, folded=True),
        path,
        Calibration(),
        quant_format=form,
        per_channel=per_channel,
        weight_type=kind,
        activation_type=ort.QuantType.QUInt8,
    )
    got = compare(path, parent)
    assert (got["verdict"], got["tensors"], got["matched"]) == ("nearest-step", 3, 3), got["reason"]
    assert got["biases"] == got["biases_within"] > 0
    assert {m["name"].partition("_")[0]: m["folded"] for m in got["table"]} == {
        "w1": True,
        "b1": True,
        "w2": True,
        "b2": True,
        "w3": False,
        "b3": False,
    }
    assert all(m["per_channel"] == per_channel for m in got["table"] if m["name"][0] == "w")


def test_a_dynamically_quantised_file_is_nearest_step(
    folder: Path, weights: dict[str, Array], parent: Path
) -> None:
    path = folder / "dynamic.onnx"
    ort.quantize_dynamic(net(folder / "folded.onnx", weights, folded=True), path)
    assert "MatMulInteger" in {n.op_type for n in onnx.load(path).graph.node}
    got = compare(path, parent)
    assert (got["verdict"], got["matched"], got["skipped"]) == ("nearest-step", 3, []), got


def test_other_batch_normalisation_is_no_parent_of_this_file(
    folder: Path, weights: dict[str, Array]
) -> None:
    path = folder / "quantised.onnx"
    ort.quantize_static(net(folder / "f.onnx", weights, folded=True), path, Calibration())
    moved = dict(weights) | {"gamma1": weights["gamma1"] * 1.2}
    got = compare(path, net(folder / "moved.onnx", moved, folded=False))
    assert got["verdict"] == "derived"


def tflite_pair(folder: Path, kind: str = "int8") -> tuple[Path, Path]:
    """A convolution whose factor and offset stand behind it as MUL and ADD, and its INT8 form."""
    random = np.random.default_rng(4)
    weight = random.normal(size=(8, 3, 3, 4)).astype(np.float32)
    factor, offset = (random.uniform(0.5, 2, 8).astype(np.float32) for _ in range(2))
    options = schema.Conv2DOptionsT()
    options.strideH = options.strideW = 1
    flat = Flat()
    x, w = flat.tensor("x", [1, 8, 8, 4]), flat.constant("w", weight)
    m, a = flat.constant("factor", factor), flat.constant("offset", offset)
    b = flat.constant("bias", np.full(8, 0.5, np.float32))
    c, p, y = (flat.tensor(n, [1, 8, 8, 8]) for n in ("c", "p", "y"))
    flat.op("CONV_2D", [x, w, b], [c], options)
    flat.op("MUL", [c, m], [p], schema.MulOptionsT())
    flat.op("ADD", [p, a], [y], schema.AddOptionsT())
    parent = flat.write(folder / "parent.tflite", [x], [y])

    folded = weight * factor.reshape(-1, 1, 1, 1)
    flat = Flat()
    x = flat.tensor("x", [1, 8, 8, 4], "INT8", [0.1], [3])
    if kind == "int8":
        codes, scale, _ = quantised(folded, axis=0)
        w = flat.constant("w", codes, scale=scale)
    else:
        scale = np.abs(folded).max(axis=(1, 2, 3)) / 7
        codes = np.rint(folded / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        halves = codes.ravel().astype(np.uint8) & 15
        w = flat.constant("w", halves[::2] | halves[1::2] << 4, "INT4", scale=scale)
        flat._graph.tensors[w].shape = [8, 3, 3, 4]
    bias = np.rint((0.5 * factor + offset) / (0.1 * scale)).astype(np.int32)
    b = flat.constant("b", bias, scale=0.1 * scale)
    y = flat.tensor("y", [1, 8, 8, 8], "INT8", [0.2], [0])
    flat.op("CONV_2D", [x, w, b], [y], options, version=3)
    return flat.write(folder / f"{kind}.tflite", [x], [y]), parent


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_factors_behind_a_tflite_layer_are_folded(tmp_path: Path, kind: str) -> None:
    got = compare(*tflite_pair(tmp_path, kind))
    assert (got["verdict"], got["matched"], got["weights"]) == ("nearest-step", 1, 288), got
    assert (got["biases"], got["biases_within"]) == (1, 1)
    assert [m["folded"] for m in got["table"]] == [True, True]


def refused(int8: Path, fp32: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        compare(int8, fp32)
    assert caught.value.exit_code == Exit.USAGE
    assert "\n" not in str(caught.value)
    return caught.value


def test_bad_files_are_named(tmp_path: Path, parent: Path) -> None:
    int8, _ = tflite_pair(tmp_path)
    missing = tmp_path / "missing.onnx"
    for files in ((missing, parent), (int8, missing)):
        error = refused(*files)
        assert (error.id, error.where) == ("E-MODEL-UNREADABLE", str(missing))
    data = int8.read_bytes()
    for end in (0, 4, 40, len(data) // 2, len(data) - 64):
        cut = tmp_path / "cut.tflite"
        cut.write_bytes(data[:end])
        assert refused(cut, parent).where == str(cut)


def test_weights_in_another_file_are_refused(tmp_path: Path, parent: Path) -> None:
    model = onnx.load(parent)
    path = tmp_path / "external.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    assert refused(path, parent).id == "E-MODEL-EXTERNAL-DATA"


def test_a_damaged_scale_is_skipped_and_told(tmp_path: Path) -> None:
    flat = Flat()
    x = flat.tensor("x", [1, 4], "INT8", [0.1])
    w = flat.constant("w", np.ones((4, 4), np.int8), scale=[0.1, 0.2, 0.3])
    y = flat.tensor("y", [1, 4], "INT8", [0.1])
    flat.op("FULLY_CONNECTED", [x, w, -1], [y], schema.FullyConnectedOptionsT())
    got = compare(flat.write(tmp_path / "m.tflite", [x], [y]), tflite_pair(tmp_path)[1])
    assert (got["verdict"], got["skipped"]) == (
        "inconclusive",
        ["w: 3 scales do not fit its shape"],
    )


def test_models_are_read_in_the_child_alone() -> None:
    code = (
        "import sys, orchestrator.models.lineage\n"
        "sys.exit(sorted({'onnx', 'ai_edge_litert', 'onnxruntime'} & set(sys.modules)) or 0)"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
