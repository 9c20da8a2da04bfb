"""Counts on real outputs that others measured: the READMEs of $ASSAY_REALMODELS."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from orchestrator.variance import device
from orchestrator.variance.answers import read
from orchestrator.variance.lattice import Output, codes
from orchestrator.variance.tasks import Anomaly, Classification

pytestmark = pytest.mark.realmodels


@pytest.fixture
def real_models() -> Path:
    folder = os.environ.get("ASSAY_REALMODELS")
    if not folder:
        pytest.skip("$ASSAY_REALMODELS is not set")
    return Path(folder)


def labels(path: Path) -> np.ndarray:
    with path.open(newline="") as file:
        return np.array([int(line["label_index"]) for line in csv.DictReader(file)])


@pytest.mark.parametrize(
    ("model", "fp32", "int8", "correct", "flips", "c_to_i", "i_to_c"),
    [
        ("cifar10_resnet8", "fp32", "int8", 440, 11, 4, 5),
        ("cifar10_resnet8", "fp32", "int8_qdq_onnx", 441, 11, 2, 4),
        ("kws_dscnn", "savedmodel_fp32", "savedmodel_int8", 884, 16, 6, 8),
        ("kws_dscnn", "savedmodel_fp32", "ref_int8", 895, 43, 13, 26),
        ("kws_dscnn", "savedmodel_fp32", "int8_qdq_onnx", 876, 28, 16, 10),
    ],
)
def test_flips_of_published_models(
    real_models: Path,
    model: str,
    fp32: str,
    int8: str,
    correct: int,
    flips: int,
    c_to_i: int,
    i_to_c: int,
) -> None:
    scores = np.load(real_models / model / "reference_outputs.npz")
    truth = labels(real_models / model / "eval_labels.csv")
    parent, child = (
        read(Classification(), [Output("scores", scores[name])], truth) for name in (fp32, int8)
    )
    accuracy = device.accuracy(child)
    assert accuracy is not None
    assert accuracy.k == correct
    found = device.against_fp32(child, parent)
    assert (found.disagreement.k, found.c_to_i, found.i_to_c) == (flips, c_to_i, i_to_c)


def test_a_dequantised_softmax_lies_on_its_lattice(real_models: Path) -> None:
    scores = np.load(real_models / "cifar10_resnet8" / "reference_outputs.npz")
    found = codes(Output("scores", scores["int8"], 1 / 256, -128, -128, 127))
    assert found is not None
    assert ((found + 128) / 256 == scores["int8"]).all()
    assert codes(Output("scores", scores["fp32"], 1 / 256, -128, -128, 127)) is None


@pytest.mark.parametrize(
    ("machine", "threshold", "flips"),
    [("01", 10.5104, 172), ("02", 10.3831, 159), ("03", 10.6930, 214), ("04", 10.4014, 154)],
)
def test_anomaly_decisions_of_published_scores(
    real_models: Path, machine: str, threshold: float, flips: int
) -> None:
    with (real_models / "ad01_toycar" / "clip_scores.csv").open(newline="") as file:
        rows = [line for line in csv.DictReader(file) if line["machine"] == machine]
    truth = np.array([int(line["anomalous"]) for line in rows])
    fp32, int8 = (
        read(
            Anomaly(threshold),
            [Output("score", np.array([[float(line[f"score_{kind}"])] for line in rows]))],
            truth,
        )
        for kind in ("fp32", "int8")
    )
    assert device.against_fp32(int8, fp32).disagreement.k == flips
