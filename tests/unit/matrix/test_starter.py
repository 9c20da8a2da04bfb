"""The starting files: valid, and guessed from shapes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.matrix import starter
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.policy import Policy
from orchestrator.matrix.starter import Inputs, Model
from orchestrator.matrix.yamlfile import load

ONNX = Model("net.int8.onnx", "onnx", (1, 8, 8), (10,))
LITE = Model("sub dir/net: int8.tflite", "tflite", (8, 8, 1), (10,))
NPZ = Inputs({"type": "npz", "path": "s.npz", "array": "x", "labels": "y"}, (8, 8, 1), True)
PLAIN = Inputs({"type": "npy", "path": "s.npy"}, (3,), False)


@pytest.mark.parametrize(
    ("have", "takes", "expected"),
    [
        ((8, 8, 1), (8, 8, 1), "same"),
        ((8, 8, 1), (1, 8, 8), "nchw"),
        ((8, 8, 3), (3, -1, -1), "nchw"),
        ((8, 8, 3), (-1, -1, -1), "same"),
        ((8, 8, 1), (64,), "flat"),
        ((8, 8, 1), (-1,), "flat"),
        ((8, 8, 1), (63,), "same"),
        ((5,), (5,), "same"),
        (None, (5,), "same"),
    ],
)
def test_the_layout_follows_from_the_shapes(have: Any, takes: Any, expected: str) -> None:
    assert starter.layout(have, takes) == expected


@pytest.mark.parametrize(
    ("stem", "expected"),
    [("net.int8", "net.int8"), ("my net (1)", "my-net-1"), ("...", "model"), ("ä" * 90, "model")],
)
def test_names_are_names(stem: str, expected: str) -> None:
    assert starter.name_of(stem) == expected


@pytest.mark.parametrize("files", [[ONNX], [LITE], [ONNX, LITE], [ONNX, ONNX]])
@pytest.mark.parametrize("parent", [None, Model("fp32.onnx", "onnx", (1, 8, 8), (10,))])
@pytest.mark.parametrize("inputs", [NPZ, PLAIN])
def test_the_files_are_valid(
    files: list[Model], parent: Model | None, inputs: Inputs, tmp_path: Path
) -> None:
    (tmp_path / "matrix.yaml").write_text(starter.matrix(files, parent, inputs))
    (tmp_path / "policy.yaml").write_text(starter.policy(files, parent, inputs))
    matrix = load(tmp_path / "matrix.yaml", Matrix)
    (model,) = matrix.models
    assert [f.path for f in model.files] == [tmp_path / f.path for f in files]
    assert len({f.name for f in model.files}) == len(files)
    assert (model.fp32 is not None) == (parent is not None)
    assert {r.runtime for r in matrix.runtimes} == {starter.RUNTIMES[f.format][1] for f in files}
    policy = load(tmp_path / "policy.yaml", Policy)
    assert policy.gates.G3.enabled == (parent is not None and inputs.labelled)
    assert policy.gates.G5.enabled == (parent is not None)
    assert yaml.safe_load(starter.inventory())["devices"][0]["name"] == "here"


def test_one_output_is_a_number() -> None:
    text = starter.matrix([Model("a.onnx", "onnx", (3,), (1,))], None, PLAIN)
    assert "type: regression" in text
    assert "Guessed" in text
