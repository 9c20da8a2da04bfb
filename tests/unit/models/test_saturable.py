"""Which files can leave int16 in pair sums, checked against what the instruction does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.models.inspect import inspect
from orchestrator.models.saturable import LARGEST_SAFE, saturable
from tests.support.tiny import MODELS


@pytest.mark.parametrize(
    ("file", "products"),
    [
        ("digits_cnn.fp32.onnx", 0),
        ("digits_cnn.u8s8.onnx", 4),
        ("digits_cnn.u8s8_rr.onnx", 0),
        ("digits_cnn.u8u8.onnx", 0),
        ("digits_ds.u8s8.onnx", 12),
        ("digits_ds.u8s8_rr.onnx", 0),
        ("digits_ds.int8.tflite", 0),
    ],
)
def test_of_the_quickstarts_files_only_the_full_range_can(file: str, products: int) -> None:
    assert inspect(MODELS / file).saturable == products


def test_the_safe_sum_is_the_largest_that_int16_holds() -> None:
    assert 255 * LARGEST_SAFE <= np.iinfo(np.int16).max < 255 * (LARGEST_SAFE + 1)
    # The most negative sum is one further away, and 255 * -129 does not fit either.
    assert 255 * -(LARGEST_SAFE + 1) < np.iinfo(np.int16).min <= 255 * -LARGEST_SAFE


def integers(weights: list[int], zero: int | None) -> onnx.ModelProto:
    """MatMulInteger; ``zero``: type of the activations' zero point, None: there is none."""
    names = ["x", "w"] + (["z"] if zero is not None else [])
    constants = [numpy_helper.from_array(np.array(weights, np.int8).reshape(-1, 1), "w")]
    if zero is not None:
        constants.append(helper.make_tensor("z", zero, [], [0]))
    kind = TensorProto.UINT8 if zero is None else zero
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", names, ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, [1, len(weights)])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 1])],
        constants,
    )
    return helper.make_model(graph)


@pytest.mark.parametrize(
    ("weights", "zero", "products"),
    [
        ([64, 64, -64, -64], TensorProto.UINT8, 0),
        ([65, 64], TensorProto.UINT8, 1),
        ([-65, -64], TensorProto.UINT8, 1),
        ([127, -127], TensorProto.UINT8, 0),
        ([127, 127], TensorProto.UINT8, 1),
        ([127, 127], None, 1),
        ([127, 127], TensorProto.INT8, 0),
        ([127], TensorProto.UINT8, 0),
    ],
)
def test_it_takes_two_weights_of_one_sign_and_unsigned_activations(
    weights: list[int], zero: int | None, products: int
) -> None:
    assert saturable(integers(weights, zero)) == products
