"""The committed quickstart: files whole, images held out, models as good as their card says."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from infra.quickstart.measure import render
from infra.quickstart.run_kernels import run_onnx, run_tflite
from tests.support.integers import evaluate
from tests.support.isa import EXACT, KINDS, PAIRS, kind_here

DATA = Path(__file__).parents[2] / "matrices" / "quickstart"
IMAGES = {"digits_cnn": "digits_8x8.npz", "digits_ds": "digits_32x32.npz"}
ONNX_INT8 = [f"{net}.{tag}.onnx" for net in IMAGES for tag in ("u8s8", "u8u8", "u8s8_rr")]
ONNX_FP32 = [f"{net}.fp32.onnx" for net in IMAGES]
TFLITE = [f"{net}.{tag}.tflite" for net in IMAGES for tag in ("fp32", "int8")]

# FP32 differs by CPU in the last bits: an image between two answers may fall either way.
FP32_SLACK = 2


def read_json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DATA / name).read_text())
    return content


def images_of(model: str) -> Any:
    return np.load(DATA / IMAGES[model.split(".")[0]])


def correct(output: Any, model: str) -> int:
    return int((output.argmax(axis=1) == images_of(model)["y"]).sum())


def card_of(kind: str) -> str:
    """The card's column for a kind of int8 arithmetic: it was measured on VNNI."""
    return {EXACT: "ort", PAIRS: "ort-haswell"}[kind]


def require_version(runtime: str) -> None:
    """Exact counts are a fact about one version of a runtime; another one proves nothing here."""
    measured = read_json("card.json")["versions"][runtime]
    if version(runtime) != measured:
        pytest.skip(f"card measured with {runtime} {measured}, installed is {version(runtime)}")


def test_every_file_has_its_recorded_hash() -> None:
    listed = {}
    for line in (DATA / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        listed[name] = digest
    assert listed == {
        name: hashlib.sha256((DATA / name).read_bytes()).hexdigest() for name in listed
    }
    unlisted = {"SHA256SUMS", "MODEL_CARD.md", "card.json"}
    present = {p.relative_to(DATA).as_posix() for p in DATA.rglob("*") if p.is_file()}
    assert present == set(listed) | unlisted


def test_everything_together_is_under_one_mebibyte() -> None:
    assert sum(p.stat().st_size for p in DATA.rglob("*") if p.is_file()) < 2**20


def test_split_parts_are_disjoint_and_complete() -> None:
    split = read_json("SPLIT.json")
    parts = [split["train"], split["calibration"], split["test"]]
    together = sorted(index for part in parts for index in part)
    assert together == list(range(1797))


@pytest.mark.parametrize("name", IMAGES.values())
def test_images_are_the_held_out_thousand(name: str) -> None:
    side = int(name.removesuffix(".npz").split("x")[-1])
    data = np.load(DATA / name, allow_pickle=False)
    split = read_json("SPLIT.json")
    assert data["id"].tolist() == split["test"]
    assert not set(data["id"].tolist()) & set(split["train"] + split["calibration"])
    assert data["x"].shape == (1000, side, side, 1)
    assert data["x"].dtype == np.float32
    assert data["y"].dtype == np.int64
    assert set(np.unique(data["x"] * 16)) == set(range(17))
    assert np.bincount(data["y"]).tolist() == read_json("card.json")["class_counts"]


def test_both_image_files_show_the_same_digits() -> None:
    small, large = (np.load(DATA / name) for name in IMAGES.values())
    assert np.array_equal(small["id"], large["id"])
    assert np.array_equal(small["y"], large["y"])
    assert np.array_equal(small["x"].repeat(4, axis=1).repeat(4, axis=2), large["x"])


@pytest.mark.parametrize("model", ONNX_INT8)
def test_onnx_int8_matches_its_card(model: str) -> None:
    require_version("onnxruntime")
    output = run_onnx(DATA / "models" / model, images_of(model)["x"])
    expected = read_json("card.json")["correct"][model][card_of(kind_here())]
    assert correct(output, model) == expected


@pytest.mark.isa
@pytest.mark.parametrize("net", IMAGES)
def test_the_card_has_what_the_other_kind_of_cpu_computes(net: str, tmp_path: Path) -> None:
    """Exactly, on this runtime's plan of the file: so its figures hold where no such CPU is."""
    require_version("onnxruntime")
    model, plan = f"{net}.u8s8.onnx", tmp_path / "plan.onnx"
    (kind,) = (kind for kind in KINDS if kind != kind_here())
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(plan)
    onnxruntime.InferenceSession(
        DATA / "models" / model, options, providers=["CPUExecutionProvider"]
    )
    graph = onnx.load(plan)
    images = images_of(model)["x"].transpose(0, 3, 1, 2)
    parts = [images[i : i + 50] for i in range(0, len(images), 50)]
    output = np.concatenate([evaluate(graph, [part], kind)[0] for part in parts])
    assert correct(output, model) == read_json("card.json")["correct"][model][card_of(kind)]


@pytest.mark.parametrize("model", ONNX_INT8)
def test_onnx_int8_outputs_lie_on_the_lattice_of_the_last_node(model: str) -> None:
    graph = onnx.load(DATA / "models" / model).graph
    last = graph.node[-1]
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    scale, zero_point = (weights[name] for name in last.input[1:])
    assert (last.op_type, list(last.output)) == ("DequantizeLinear", ["logits"])
    output = run_onnx(DATA / "models" / model, images_of(model)["x"][:50])
    codes = np.rint(output / scale) + zero_point
    assert codes.min() >= 0
    assert codes.max() <= 255
    assert np.array_equal(((codes - zero_point) * scale).astype(np.float32), output)


@pytest.mark.parametrize("model", ONNX_FP32)
def test_onnx_fp32_matches_its_card(model: str) -> None:
    output = run_onnx(DATA / "models" / model, images_of(model)["x"])
    expected = read_json("card.json")["correct"][model]["ort"]
    assert abs(correct(output, model) - expected) <= FP32_SLACK


@pytest.mark.parametrize("kernels", ["default", "reference"])
@pytest.mark.parametrize("model", TFLITE)
def test_tflite_matches_its_card(model: str, kernels: str) -> None:
    require_version("ai-edge-litert")
    output = run_tflite(DATA / "models" / model, images_of(model)["x"], kernels=kernels)
    name = {"default": "litert", "reference": "litert-reference"}[kernels]
    expected = read_json("card.json")["correct"][model][name]
    slack = FP32_SLACK if ".fp32." in model else 0
    assert abs(correct(output, model) - expected) <= slack


def test_the_card_says_which_files_break_on_an_avx2_cpu_without_vnni() -> None:
    """What the quickstart exists to show: wide U8S8 saturates, the two safe variants do not."""
    rows = {
        row["model"]: row
        for row in read_json("card.json")["differences"]
        if (row["kernels"], row["baseline"]) == ("ort-haswell", "ort")
    }
    broken = rows["digits_ds.u8s8.onnx"]
    assert broken["elements"] > 0.9 * broken["elements_of"]
    assert broken["flips"] > 30
    for net in IMAGES:
        assert rows[f"{net}.u8u8.onnx"]["elements"] == 0
        assert rows[f"{net}.u8s8_rr.onnx"]["elements"] == 0


def test_the_readable_card_is_the_machine_readable_one() -> None:
    assert (DATA / "MODEL_CARD.md").read_text() == render(DATA, read_json("card.json"))
