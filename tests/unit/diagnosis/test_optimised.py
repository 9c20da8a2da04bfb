"""A graph that was optimised before can be tapped and taken apart without a bit changing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from device_worker.wire import RuntimeSpec
from orchestrator.diagnosis.pair import Trial
from orchestrator.errors import InputError
from orchestrator.models import optimised, surgery
from orchestrator.models.graph import Array, Layer, same_bits
from tests.support.realmodels import MODELS as REAL
from tests.support.tiny import MODELS
from tests.unit.diagnosis.build import residual, samples
from tests.unit.diagnosis.run import Here, run

SIGNED = {"session.qdqisint8allowed": "1"}
UNSIGNED = {"session.qdqisint8allowed": "0"}


def graph_of(data: bytes, x: Array, session: dict[str, str]) -> tuple[bytes, tuple[Array, ...]]:
    (tried,) = Here(RuntimeSpec("onnxruntime", session=session)).run(
        [Trial("whole", data, (x,), graph=True)]
    )
    assert tried.graph is not None
    return tried.graph, tried.outputs


def check(data: bytes, x: Array, session: dict[str, str]) -> None:
    graph, whole = graph_of(data, x, session)
    as_it_is = RuntimeSpec("onnxruntime", session=session, optimise=False)
    tapped = optimised.tap(graph)
    taps = run(tapped.model, [x], as_it_is)
    assert all(map(same_bits, taps[: len(whole)], whole))
    tensors = dict(zip(tapped.outputs, taps, strict=True)) | {tapped.inputs[0]: x}
    forms = {name: (str(v.dtype), v.shape[1:]) for name, v in tensors.items()}
    pieces = optimised.alone(graph, forms)
    assert len(pieces) == len(optimised.read(graph).operators)
    for piece in pieces:
        if piece.inputs:
            ran = run(piece.model, [tensors[t] for t in piece.inputs], as_it_is)
            for name, value in zip(piece.outputs, ran, strict=True):
                assert same_bits(tensors[name], value), name


@pytest.mark.parametrize("session", [SIGNED, UNSIGNED], ids=["signed", "unsigned"])
@pytest.mark.parametrize("name", ["residual", "digits_ds.u8s8", "digits_cnn.fp32"])
def test_taps_and_single_operators_are_the_model(name: str, session: dict[str, str]) -> None:
    if name == "residual":
        check(residual(), samples(3), session)
        return
    side = 32 if "_ds" in name else 8
    x = np.random.RandomState(0).rand(3, 1, 1, side, side).astype(np.float32)
    check((MODELS / f"{name}.onnx").read_bytes(), x, session)


@pytest.mark.realmodels
@pytest.mark.parametrize(
    "file", ["cifar10_resnet8/resnet8_int8_qdq.onnx", "kws_dscnn/kws_ref_model_int8_qdq.onnx"]
)
def test_taps_and_single_operators_are_the_real_model(file: str) -> None:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(REAL / file, providers=["CPUExecutionProvider"])
    shape = [a if isinstance(a, int) else 1 for a in session.get_inputs()[0].shape]
    x = np.random.RandomState(0).uniform(0, 200, (3, *shape)).astype(np.float32)
    check((REAL / file).read_bytes(), x, {})


def test_plans_are_compared_by_the_names_of_the_models_operators() -> None:
    graphs = [graph_of(residual(), samples(1), session)[0] for session in (UNSIGNED, SIGNED)]
    found = optimised.compare(*graphs)
    assert found.layers, "the branch is float where codes may not be signed"
    assert {layer.name for layer in found.layers} <= {"conv1", "conv2", "add"}
    for layer in found.layers:
        assert (optimised.integer(layer.a), optimised.integer(layer.b)) == (False, True)
    assert sum(found.same.values()) + len(found.layers) == 3
    mirrored = optimised.compare(*reversed(graphs))
    assert mirrored.layers == tuple(Layer(x.name, x.b, x.a) for x in found.layers)
    assert (mirrored.a, mirrored.b) == (found.b, found.a)
    assert optimised.compare(graphs[0], graphs[0]).layers == ()


def test_the_subprocess_does_as_the_functions_do() -> None:
    x = samples(1)
    graph, _ = graph_of(residual(), x, {})
    assert surgery.read_optimised(graph) == optimised.read(graph)
    assert surgery.tap_optimised(graph, graph) == 2 * [optimised.tap(graph)]
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        t: ("float32", (1,)) for o in optimised.read(graph).operators for t in o.outputs
    }
    tensors["x"] = ("float32", (1, 4, 6, 6))
    assert surgery.alone_optimised(graph, tensors) == optimised.alone(graph, tensors)
    assert surgery.compare_optimised(graph, graph) == optimised.compare(graph, graph)


def test_what_a_device_sends_as_a_graph_may_be_anything() -> None:
    with pytest.raises(InputError, match="E-MODEL-UNREADABLE"):
        surgery.tap_optimised(b"\x07garbage")
