"""From a model and its inputs to a verdict, without writing a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.support.cli import Done, assay
from tests.support.tiny import MODELS, QUICKSTART

CNN = MODELS / "digits_cnn.u8u8.onnx"
PARENT = MODELS / "digits_cnn.fp32.onnx"
DIGITS = QUICKSTART / "digits_8x8.npz"


def init(folder: Path, *more: str | Path, model: Path = CNN, inputs: Path = DIGITS) -> Done:
    return assay("init", model, "--inputs", inputs, "--folder", folder, *more)


def test_what_it_writes_runs(tmp_path: Path, store: Path) -> None:
    done = init(tmp_path / "mine", "--fp32", PARENT)
    assert done.code == 0, done.err
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == [
        *("inventory.yaml", "matrix.yaml", "policy.yaml"),
    ]
    matrix = tmp_path / "mine" / "matrix.yaml"
    (model,) = yaml.safe_load(matrix.read_text())["models"]
    assert model["files"][0]["layout"] == model["fp32"]["layout"] == "nchw"
    assert assay("plan", matrix, store=store).code == 0
    ended = assay("run", matrix, "--json", store=store)
    (row,) = ended.json["rows"]
    assert row["accuracy"]["n"] == 1000
    assert {g["gate"]: g["verdict"] for g in row["gates"]}["G2"] == "pass"


def test_nothing_that_exists_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("mine\n")
    init(tmp_path).refused(2, "E-INIT-EXISTS", "policy.yaml", "--folder")
    assert [p.name for p in tmp_path.iterdir()] == ["policy.yaml"]
    assert (tmp_path / "policy.yaml").read_text() == "mine\n"


def test_a_model_without_parent_and_a_plain_array(tmp_path: Path, store: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 8, 8, 1), np.float32))
    assert init(tmp_path, "--json", inputs=tmp_path / "x.npy").json["schema"] == "assay.init/1"
    assert assay("plan", tmp_path / "matrix.yaml", store=store).code == 0


@pytest.mark.parametrize(
    ("model", "inputs", "error"),
    [
        ("net.pt", DIGITS, "E-MODEL-FORMAT"),
        ("none.onnx", DIGITS, "E-MODEL-UNREADABLE"),
        ("junk.onnx", DIGITS, "E-MODEL-UNREADABLE"),
        (CNN, "none.npz", "E-INPUT-UNREADABLE"),
        (CNN, "junk.npz", "E-INPUT-UNREADABLE"),
        (CNN, "junk.npy", "E-INPUT-UNREADABLE"),
        (CNN, "notes.txt", "E-INPUT-UNREADABLE"),
        (CNN, "folder", "E-INPUT-UNREADABLE"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    model: str | Path, inputs: str | Path, error: str, tmp_path: Path
) -> None:
    for name in ("junk.onnx", "junk.npz", "junk.npy", "notes.txt", "net.pt"):
        (tmp_path / name).write_text("no such thing")
    (tmp_path / "folder").mkdir()
    done = init(tmp_path / "new", model=tmp_path / model, inputs=tmp_path / inputs)
    done.refused(2, error)
    assert not (tmp_path / "new").exists()
