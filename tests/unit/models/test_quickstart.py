"""Every quickstart file is a nearest step of its own net's parents and of no other's."""

from __future__ import annotations

import pytest

from orchestrator.models.lineage_child import answer
from tests.support.tiny import MODELS


@pytest.mark.parametrize("net", ["digits_cnn", "digits_ds"])
@pytest.mark.parametrize("form", ["u8s8.onnx", "u8s8_rr.onnx", "u8u8.onnx", "int8.tflite"])
def test_every_quickstart_file_is_of_its_own_parent_alone(net: str, form: str) -> None:
    for parent in MODELS.glob("*.fp32.*"):
        got = answer(str(MODELS / f"{net}.{form}"), str(parent))
        if parent.name.startswith(net):
            assert got["verdict"] == "nearest-step", got["reason"]
            assert got["matched"] == got["tensors"] > 0
            assert got["biases_within"] == got["biases"] > 0
            assert got["clipped"] == 0
        else:
            assert got["verdict"] == "unrelated", got["reason"]
