"""Which products of an ONNX file can leave int16 where a CPU adds pairs of them there.

VPMADDUBSW, which x86 without VNNI has for 8-bit products, adds u8 * s8 of two neighbours in int16
and clamps: 255 * (w1 + w2) is out of range when the two weights sum to more than 128. ONNX Runtime
computes with it wherever activations are unsigned and weights signed, and turns int8 activations
between DequantizeLinear and QuantizeLinear into unsigned ones first. A range reduced to seven bits
([-64, 64]) cannot saturate, nor can unsigned weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

LARGEST_SAFE = 128
"""Two weights that sum to this are safe: 255 * 128 < 2 ** 15."""

_FLOAT_FORM = {"Conv": 1, "Gemm": 1, "MatMul": 1}
"""Operator -> position of its weights; between DequantizeLinear and QuantizeLinear."""
_INTEGER_FORM = {
    "QLinearConv": (3, 2),
    "QLinearMatMul": (3, 2),
    "QGemm": (3, 2),
    "MatMulInteger": (1, 2),
    "ConvInteger": (1, 2),
}
"""Operator -> positions of its weights and of the activations' zero point."""


def saturable(model: Any) -> int:
    """How many products have int8 weights that can saturate, whatever the activations are."""
    constants = {t.name: t for t in model.graph.initializer}
    producer = {name: node for node in model.graph.node for name in node.output}
    return sum(_can(w) for w in _weights(model.graph.node, constants, producer))


def _weights(
    nodes: Any, constants: Mapping[str, Any], producer: Mapping[str, Any]
) -> Iterator[NDArray[Any]]:
    for node in nodes:
        if node.op_type in _FLOAT_FORM and len(node.input) > 1:
            source = producer.get(node.input[_FLOAT_FORM[node.op_type]])
            activation = producer.get(node.input[0])
            if source is None or not (_dequantised(source) and _dequantised(activation)):
                continue
            weights = constants.get(source.input[0])
        elif node.op_type in _INTEGER_FORM:
            at, zero = _INTEGER_FORM[node.op_type]
            name = node.input[zero] if len(node.input) > zero else ""
            point = constants.get(name)
            if point is not None and point.data_type != onnx.TensorProto.UINT8:
                continue  # computed with signed activations as they are
            weights = constants.get(node.input[at])
        else:
            continue
        if weights is not None and weights.data_type == onnx.TensorProto.INT8:
            yield numpy_helper.to_array(weights)


def _dequantised(node: Any) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def _can(weights: NDArray[Any]) -> bool:
    """Whether two weights of one sign exceed the safe sum; which are neighbours is the kernel's."""
    flat = np.sort(weights.astype(np.int32), axis=None)
    if flat.size < 2:
        return False
    return int(flat[-2:].sum()) > LARGEST_SAFE or int(flat[:2].sum()) < -LARGEST_SAFE
