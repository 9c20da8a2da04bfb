"""An ONNX file's inputs, outputs and operators; which integers a float output comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from orchestrator.errors import InputError
from orchestrator.models.inspect import TensorInfo, code_range
from orchestrator.models.saturable import saturable

MOVES = frozenset({"Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze", "Transpose"})
"""Operators that rearrange elements and change no value."""
_QUANTISING = ("QuantizeLinear", "DequantizeLinear", "QLinear", "Integer", "QGemm", "NBits")


def read_onnx(path: Path) -> dict[str, Any]:
    """Raises InputError E-MODEL-EXTERNAL-DATA; whatever the parser and the checker raise."""
    model = onnx.load(str(path), load_external_data=False)
    # Before the checker, which would follow the reference to another file.
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in _tensors(model)):
        raise InputError(
            "E-MODEL-EXTERNAL-DATA",
            "its weights are in another file, which its sha256 would not cover",
            fix="save it as one file (onnx.save without external data)",
        )
    if not all(v.type.tensor_type.HasField("shape") for v in model.graph.output):
        model = onnx.shape_inference.infer_shapes(model)
        for value in model.graph.output:
            if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
                raise InputError(
                    "E-MODEL-UNREADABLE",
                    f"the file does not say the shape of its output {value.name!r},"
                    " which is then known only after a run: not supported",
                    fix="write the output's shape into the file, with as many axes as it has",
                )
    # A newer form than this checker knows is for the runtime on the device to take or refuse.
    stated = model.ir_version
    model.ir_version = min(stated, onnx.IR_VERSION)
    onnx.checker.check_model(model)
    model.ir_version = stated
    graph = model.graph
    constants = _constants(graph)
    operators = Counter(_kind(node) for node in _nodes(model))
    inputs = [v for v in graph.input if v.name not in constants]
    return {
        "format": "onnx",
        "inputs": [asdict(_input(v, graph, constants)) for v in inputs],
        "outputs": [asdict(_output(v, graph, constants)) for v in graph.output],
        "operators": operators,
        "quantised": sum(n for kind, n in operators.items() if any(q in kind for q in _QUANTISING)),
        "saturable": saturable(model),
    }


def _output(value: Any, graph: Any, constants: Mapping[str, Any]) -> TensorInfo:
    """A float output's lattice is that of the DequantizeLinear it comes from, moves aside."""
    info = _tensor(value)
    producer = {name: node for node in graph.node for name in node.output}
    node = producer.get(value.name)
    while node is not None and node.op_type in MOVES:
        node = producer.get(node.input[0])
    wanted = "DequantizeLinear" if info.dtype.startswith("float") else "QuantizeLinear"
    if node is None or node.op_type != wanted:
        return info
    return _quantised(info, node, constants)


def _input(value: Any, graph: Any, constants: Mapping[str, Any]) -> TensorInfo:
    """An integer input's scale is that of the DequantizeLinear that alone consumes it."""
    users = [node for node in graph.node if value.name in node.input]
    if len(users) != 1 or users[0].op_type != "DequantizeLinear":
        return _tensor(value)
    return _quantised(_tensor(value), users[0], constants)


def _quantised(info: TensorInfo, node: Any, constants: Mapping[str, Any]) -> TensorInfo:
    scale = constants.get(node.input[1])
    has_zero = len(node.input) > 2 and bool(node.input[2])
    zero = constants.get(node.input[2]) if has_zero else None
    if scale is None or (has_zero and zero is None):
        return info  # computed at run time
    scales = numpy_helper.to_array(scale)
    if scales.size != 1:
        return info  # per channel: no one lattice
    # Without a zero point the ONNX specification says uint8 and 0.
    codes = "uint8" if zero is None else _name(zero.data_type)
    low, high = code_range(codes) or (None, None)  # float8 codes are no integers
    return replace(
        info,
        scale=float(scales.reshape(-1)[0]),
        zero_point=0 if zero is None else int(numpy_helper.to_array(zero).reshape(-1)[0]),
        code_min=low,
        code_max=high,
    )


def _tensor(value: Any) -> TensorInfo:
    if value.type.WhichOneof("value") != "tensor_type":
        raise InputError("E-MODEL-UNREADABLE", f"{value.name!r} is not a tensor")
    return TensorInfo(value.name, _name(value.type.tensor_type.elem_type), _shape(value))


def _name(elem_type: int) -> str:
    if elem_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        return "int4" if elem_type == onnx.TensorProto.INT4 else "uint4"
    return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type)).name)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1
        for d in value.type.tensor_type.shape.dim
    )


def _constants(graph: Any) -> dict[str, Any]:
    found = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return found


def _kind(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _nodes(model: Any) -> Iterator[Any]:
    """Every node of the graph, of its subgraphs and of the model's own functions."""
    waiting = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                waiting.extend(inner.node)


def _tensors(model: Any) -> Iterator[Any]:
    graphs = [model.graph]
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            graphs += [attribute.g, *attribute.graphs]
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
