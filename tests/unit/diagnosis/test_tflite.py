"""Cutting a TFLite file at any operator changes no bit of what its operators compute."""

from __future__ import annotations

import numpy as np
import pytest

from device_worker.wire import RuntimeSpec
from orchestrator.errors import InputError
from orchestrator.models import cut_tflite, surgery
from orchestrator.models.graph import Array, NotLocalisableError
from tests.support.cli import REPO
from tests.support.realmodels import MODELS as REAL
from tests.support.tiny import MODELS
from tests.unit.diagnosis.run import run

KERNELS = ("default", "reference")
REAL_FILES = (
    "cifar10_resnet8/resnet8_int8.tflite",
    "coral_mobilenet_v1_025_128/mobilenet_v1_0.25_128_quant.tflite",
    "kws_dscnn/kws_ref_model_int8.tflite",
    "ad01_toycar/ad01_int8.tflite",
)


def check(data: bytes, spec: RuntimeSpec) -> None:
    """Every tensor is the same in all prefixes that end after it, and alone; the last is whole."""
    graph = cut_tflite.read(data)
    count = len(graph.operators)
    x = inputs(data)
    tensors: dict[str, Array] = {graph.inputs[0]: x}
    for piece in cut_tflite.cut(data, [(0, k) for k in range(count)]):
        assert piece.inputs == graph.inputs
        for tensor, value in zip(piece.outputs, run(piece.model, [x], spec), strict=True):
            np.testing.assert_array_equal(tensors.setdefault(tensor, value), value)
    for name, value in zip(graph.outputs, run(data, [x], spec), strict=True):
        np.testing.assert_array_equal(tensors[name], value)
    for piece in cut_tflite.cut(data, [(k, k) for k in range(count)]):
        given = [tensors[t] for t in piece.inputs]
        for tensor, value in zip(piece.outputs, run(piece.model, given, spec), strict=True):
            np.testing.assert_array_equal(tensors[tensor], value)


def inputs(data: bytes) -> Array:
    from ai_edge_litert.interpreter import Interpreter

    (info,) = Interpreter(model_content=data).get_input_details()
    kind = np.iinfo(info["dtype"])
    shape = (2, 1, *info["shape"][1:])
    found: Array = np.random.RandomState(3).randint(kind.min, kind.max + 1, shape)
    return found.astype(info["dtype"])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", ["digits_cnn.int8", "digits_ds.int8"])
def test_prefixes_and_single_operators_are_the_model(name: str, kernels: str) -> None:
    check((MODELS / f"{name}.tflite").read_bytes(), RuntimeSpec("litert", kernels=kernels))


@pytest.mark.realmodels
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("file", REAL_FILES)
def test_prefixes_and_single_operators_are_the_real_model(file: str, kernels: str) -> None:
    check((REAL / file).read_bytes(), RuntimeSpec("litert", kernels=kernels))


def test_a_piece_holds_only_what_its_operators_need() -> None:
    data = (MODELS / "digits_ds.int8.tflite").read_bytes()
    count = len(cut_tflite.read(data).operators)
    pieces = cut_tflite.cut(data, [(k, k) for k in range(count)])
    # Each weight is in one piece; headers and names add less than half as much again.
    assert sum(len(p.model) for p in pieces) < 1.5 * len(data)


def test_a_compiled_file_cannot_be_looked_into() -> None:
    data = (REPO / "matrices" / "standins" / "digits_cnn.int8_edgetpu.tflite").read_bytes()
    with pytest.raises(NotLocalisableError, match="compiled for an Edge TPU"):
        surgery.read_tflite(data)


@pytest.mark.parametrize("keep", [0, 7, 40, 2000])
def test_a_damaged_file_is_one_line(keep: int) -> None:
    data = (MODELS / "digits_cnn.int8.tflite").read_bytes()[:keep]
    with pytest.raises(InputError, match="E-MODEL-UNREADABLE"):
        surgery.read_tflite(data)


def test_the_subprocess_cuts_as_the_function_does() -> None:
    data = (MODELS / "digits_cnn.int8.tflite").read_bytes()
    assert surgery.read_tflite(data) == cut_tflite.read(data)
    spans = [(0, 1), (2, 3), (4, 4)]
    assert surgery.cut_tflite(data, spans) == cut_tflite.cut(data, spans)
