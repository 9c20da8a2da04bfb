"""The search finds exactly the operators that compute otherwise, and says so when it cannot."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from device_worker.wire import RuntimeSpec
from orchestrator.diagnosis import search_onnx, search_tflite
from orchestrator.diagnosis.pair import Pair
from orchestrator.diagnosis.result import EQUAL, OPERATOR, PLAN, Found
from orchestrator.models import cut_tflite
from orchestrator.models.graph import Array, NotLocalisableError
from tests.support.realmodels import MODELS as REAL
from tests.support.tiny import MODELS, QUICKSTART
from tests.unit.diagnosis.build import residual, samples
from tests.unit.diagnosis.run import Here

LITERT, ORT = RuntimeSpec("litert"), RuntimeSpec("onnxruntime")
REFERENCE = RuntimeSpec("litert", kernels="reference")
SIGNED = RuntimeSpec("onnxruntime", session={"session.qdqisint8allowed": "1"})
UNSIGNED = RuntimeSpec("onnxruntime", session={"session.qdqisint8allowed": "0"})


@cache
def digits() -> tuple[bytes, Array]:
    """The plain net and 8 digits, as codes [8, 1, 8, 8, 1] of its input."""
    data = (MODELS / "digits_cnn.int8.tflite").read_bytes()
    with np.load(QUICKSTART / "digits_8x8.npz") as arrays:
        x = arrays["x"][:8].reshape(8, 1, 8, 8, 1).astype(np.float64)
    codes = np.clip(np.rint(x / x.max() * 255) - 128, -128, 127)
    return data, codes.astype(np.int8)


def search(a: Here, b: Here, at_once: int = 64) -> Found:
    data, x = digits()
    return search_tflite.localise(data, [x], Pair(a, b), at_once)


@cache
def other_kernels() -> Found:
    return search(Here(LITERT), Here(REFERENCE))


def weights(operator: int) -> bytes:
    """The largest constant that only this operator reads, as it lies in the file."""
    (piece,) = cut_tflite.cut(digits()[0], [(operator, operator)])
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(piece.model, 0)
    return max((bytes(b.data) for b in model.buffers if b.data is not None), key=len)


def with_weights() -> list[int]:
    kinds = [o.kind for o in cut_tflite.read(digits()[0]).operators]
    return [i for i, kind in enumerate(kinds) if kind in ("CONV_2D", "FULLY_CONNECTED")]


@pytest.mark.parametrize("operator", with_weights())
def test_changed_weights_name_their_operator_and_no_other(operator: int) -> None:
    before = weights(operator)
    after = bytes(value ^ 0x40 for value in before)
    found = search(Here(LITERT), Here(LITERT, spoil=lambda model: model.replace(before, after)))
    assert (found.answer, found.first, found.guilty) == (OPERATOR, operator, (operator,))
    assert all(o.alone_as_in_model for o in found.operators)


def test_other_kernels_are_found_however_few_pieces_go_at_once() -> None:
    whole = other_kernels()
    assert whole.answer == OPERATOR
    assert whole.first == min(whole.guilty)
    assert {whole.operators[i].kind for i in whole.guilty} <= {"CONV_2D", "FULLY_CONNECTED"}
    for i in whole.guilty:
        local = whole.operators[i].local
        assert local is not None
        assert local.max_lsb == 1
    few = search(Here(LITERT), Here(REFERENCE), at_once=2)
    assert (few.first, few.guilty) == (whole.first, whole.guilty)
    # After the first difference, b runs no prefix but the last.
    assert few.first is not None
    seen = [o.index for o in few.operators if o.accumulated is not None]
    assert seen == [*range(few.first // 2 * 2 + 2), len(few.operators) - 1]


def test_the_sides_exchanged_change_nothing_but_the_sign() -> None:
    one, other = other_kernels(), search(Here(REFERENCE), Here(LITERT))
    assert one.first == other.first
    assert one.first is not None
    first, mirrored = one.operators[one.first].local, other.operators[one.first].local
    assert first is not None
    assert mirrored is not None
    assert (first.different, first.max_lsb) == (mirrored.different, mirrored.max_lsb)
    assert first.mean_lsb == -(mirrored.mean_lsb or 0)
    assert {first.sign, mirrored.sign} in ({"+", "-"}, {"±"})


def test_a_side_is_equal_to_itself() -> None:
    found = search(Here(LITERT), Here(LITERT))
    assert (found.answer, found.first, found.guilty) == (EQUAL, None, ())
    assert all(o.accumulated and not o.accumulated.different for o in found.operators)


def test_a_cut_that_changes_the_answer_is_no_basis() -> None:
    """A runtime that treats a piece otherwise than the whole, as fusing ones may."""
    data, _ = digits()
    before = weights(0)
    after = bytes([before[0] ^ 0x40]) + before[1:]
    moody = Here(LITERT, spoil=lambda m: m if m == data else m.replace(before, after))
    with pytest.raises(NotLocalisableError, match="changes its answer"):
        search(moody, Here(LITERT))


def scaled(name: str) -> Any:
    """Set one scale to 0.2, wherever it is."""

    def spoil(data: bytes) -> bytes:
        model = onnx.load_from_string(data)
        for tensor in model.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(np.array(0.2, np.float32), name))
        changed: bytes = model.SerializeToString()
        return changed

    return spoil


def test_one_changed_scale_names_the_operators_that_use_it() -> None:
    found = search_onnx.localise(
        residual(), [samples(4)], Pair(Here(SIGNED), Here(SIGNED, spoil=scaled("add_scale")))
    )
    # The constants differ, and so do the hashes of the plans; but not what they make b answer.
    assert (found.answer, found.plan_matters) == (OPERATOR, False)
    names = {found.operators[i].name for i in found.guilty}
    assert names == {"add", "add_DQ"}
    assert found.first == min(found.guilty)


def test_equal_plans_and_equal_kernels_are_equal() -> None:
    found = search_onnx.localise(residual(), [samples(4)], Pair(Here(ORT), Here(ORT)))
    assert (found.answer, found.plan, found.first, found.guilty) == (EQUAL, None, None, ())


def test_a_plan_that_the_other_device_cannot_run_is_said_to_be_one() -> None:
    """As one whose kernels are for the first device's own layouts."""
    foreign = Here(SIGNED, spoil=lambda model: b"" if b"qdq_s8_to_u8" in model else model)
    found = search_onnx.localise(residual(), [samples(2)], Pair(Here(UNSIGNED), foreign))
    assert (found.answer, found.plan_matters, found.operators) == (PLAN, None, ())
    assert "cannot run the plan" in (found.reason or "")
    assert found.plan is not None
    assert found.plan.layers


@pytest.mark.realmodels
def test_two_plans_on_one_machine_differ_by_plan_alone() -> None:
    data = (REAL / "cifar10_resnet8" / "resnet8_int8_qdq.onnx").read_bytes()
    with np.load(REAL / "cifar10_resnet8" / "eval_images.npz") as arrays:
        x = arrays["images"][:6].astype(np.float32)[:, None]
    found = search_onnx.localise(data, [x], Pair(Here(UNSIGNED), Here(SIGNED)))
    assert (found.answer, found.plan_matters) == (PLAN, True)
    assert (found.first, found.guilty) == (None, ())  # one machine, one arithmetic
    assert found.plan is not None
    kinds = sorted((layer.a, layer.b) for layer in found.plan.layers)
    assert kinds == 2 * [("Add", "QLinearAdd")] + 6 * [("Conv", "QLinearConv")]
