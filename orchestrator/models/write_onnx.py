"""Small ONNX files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OPSET, CONTRIB, IR = 17, 1, 8


def onnx_file(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[str, Sequence[int]]],
    output: tuple[str, str],
    constants: Mapping[str, Any],
) -> bytes:
    """``inputs``: name -> (dtype, shape); ``output``: its name and dtype. The same bytes always."""
    made = [
        helper.make_tensor_value_info(name, _type(dtype), list(shape))
        for name, (dtype, shape) in inputs.items()
    ]
    name, dtype = output
    graph = helper.make_graph(
        list(nodes),
        "assay",
        made,
        [helper.make_tensor_value_info(name, _type(dtype), None)],
        [numpy_helper.from_array(_array(value), key) for key, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", CONTRIB)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="assay")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    domain = "com.microsoft" if op in _CONTRIB else ""
    return helper.make_node(op, list(inputs), [output], domain=domain, **attributes)


_CONTRIB = frozenset(
    ("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearGlobalAveragePool", "QLinearSoftmax")
)


def _type(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _array(value: Any) -> NDArray[Any]:
    return np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
