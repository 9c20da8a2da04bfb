"""Regression, anomaly, and a parent that is none: other people's models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.cli import assay
from tests.support.judged import Judged
from tests.support.realmodels import MODELS, classifiers, write

pytestmark = pytest.mark.realmodels


def test_a_hybrid_is_no_fp32_parent(tmp_path: Path) -> None:
    """Float tensors at both ends and the right shapes, but INT8 weights within."""
    parts = classifiers()
    (kws, _), inputs = parts["models"], parts["inputs"]
    kws["fp32"] = str(MODELS / "kws_dscnn" / "kws_ref_model_float32.tflite")
    kws["files"] = [f for f in kws["files"] if f["name"] == "ref"]
    matrix = write(tmp_path, ["host"], models=[kws], inputs=inputs[:1])
    store = tmp_path / "store"
    assay("submit", matrix, store=store).refused(
        2, "E-FP32-PARENT", "kws_ref_model_float32.tflite", "quantised"
    )
    assert assay("status", store=store).code == 2  # no run was made


TOLERANCE = 0.05


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Regression with its analytic truth; anomaly on noise, since no sound may be shipped."""
    folder = tmp_path_factory.mktemp("others")
    sine, toycar = MODELS / "hello_sine", MODELS / "ad01_toycar"
    noise = np.random.default_rng(7).uniform(-60, 0, (200, 640)).astype(np.float32)
    np.save(folder / "noise.npy", noise)
    np.save(folder / "threshold.npy", np.median(mse(noise, fp32_of_toycar(noise))))
    models = [
        {
            "name": "sine",
            "task": {"type": "regression", "tolerance": TOLERANCE},
            "fp32": str(sine / "hello_world_fp32.tflite"),
            "inputs": "angles",
            "files": [{"name": "int8", "path": str(sine / "hello_world_int8.tflite")}],
        },
        {
            "name": "toycar",
            "task": {
                "type": "anomaly",
                "score": "mse_to_input",
                "threshold": float(np.load(folder / "threshold.npy")),
            },
            "fp32": str(toycar / "ad01_fp32.tflite"),
            "inputs": "noise",
            "files": [
                {"name": "int8", "path": str(toycar / "ad01_int8.tflite")},
                {"name": "qdq", "path": str(toycar / "ad01_int8_qdq.onnx")},
            ],
        },
    ]
    inputs = [
        {
            "name": "angles",
            "type": "npz",
            "path": str(sine / "reference_outputs.npz"),
            "array": "x",
            "labels": "sin",
        },
        {"name": "noise", "type": "npy", "path": str(folder / "noise.npy")},
    ]
    matrix = write(folder, ["host"], models=models, inputs=inputs)
    return Judged(assay("run", matrix, "--json", store=folder / "store"), folder / "store")


def mse(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = ((x.astype(np.float64) - y) ** 2).mean(axis=1)
    return found


def fp32_of_toycar(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The float autoencoder on ``x`` [n, 640], without Assay."""
    from ai_edge_litert.interpreter import Interpreter

    net = Interpreter(str(MODELS / "ad01_toycar" / "ad01_fp32.tflite"), num_threads=1)
    net.allocate_tensors()
    (into,), (out,) = net.get_input_details(), net.get_output_details()
    found = []
    for sample in x:
        net.set_tensor(into["index"], sample[None])
        net.invoke()
        found.append(net.get_tensor(out["index"])[0].copy())
    return np.stack(found)


def test_regression_is_judged_by_its_tolerance(others: Judged) -> None:
    with np.load(MODELS / "hello_sine" / "reference_outputs.npz") as arrays:
        truth, fp32, int8 = (arrays[k].astype(np.float64) for k in ("sin", "fp32", "int8"))
    for id in ("sine.int8@host/litert", "sine.int8@host/tflite214"):
        row = others.rows[id]
        if row["status"] == "not_available":
            continue
        codes = others.output(f"host-sine.int8-angles-clean-{row['runtime']}").reshape(-1)
        ours = (codes.astype(np.float64) - 5) * 0.00829096
        assert np.abs(ours - int8).max() < 4 * 0.0083  # kernels differ here by up to three steps
        assert row["accuracy"]["k"] == int((np.abs(ours - truth) <= TOLERANCE).sum())
        assert row["fp32"]["accuracy"]["k"] == int((np.abs(fp32 - truth) <= TOLERANCE).sum())
        assert row["fp32"]["disagreement"]["k"] == int((np.abs(ours - fp32) > TOLERANCE).sum()) > 0
        assert row["accuracy"]["n"] == 1000
    if others.rows["sine.int8@host/tflite214"]["status"] == "ok":
        codes = others.output("host-sine.int8-angles-clean-tflite214").reshape(-1)
        assert np.allclose((codes.astype(np.float64) - 5) * 0.00829096, int8, atol=1e-5)


def test_anomaly_decides_by_score_and_threshold(others: Judged) -> None:
    """Noise says nothing about machines; it says that every step of the task is carried out."""
    folder = others.store.parent
    noise, threshold = np.load(folder / "noise.npy"), float(np.load(folder / "threshold.npy"))
    parent = mse(noise, fp32_of_toycar(noise)) > threshold
    assert 0 < parent.sum() < len(parent)
    for id, output in {
        "toycar.int8@host/litert": "host-toycar.int8-noise-clean-litert",
        "toycar.qdq@host/ort": "host-toycar.qdq-noise-clean-ort",
    }.items():
        found = others.output(output).reshape(len(noise), 640).astype(np.float64)
        if id.startswith("toycar.int8"):
            found = (found - 96) * 0.36449847
        row = others.rows[id]
        changed = int(((mse(noise, found) > threshold) != parent).sum())
        assert (row["fp32"]["disagreement"]["k"], row["fp32"]["disagreement"]["n"]) == (
            changed,
            200,
        )
        assert row["accuracy"] is None
        gate = others.gate(id, "G3")
        assert (gate["verdict"], gate["reason"]) == ("inconclusive", "G3 accuracy: no labels")
        assert row["verdict"] != "pass"


def test_a_run_without_labels_is_never_a_pass(others: Judged) -> None:
    assert others.verdict in ("fail", "inconclusive")
    assert others.done.code == {"fail": 1, "inconclusive": 5}[others.verdict]
