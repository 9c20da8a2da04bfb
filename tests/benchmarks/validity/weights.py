"""The weights in a model file, to spoil them or to plant other ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from orchestrator.variance.lattice import Array

LEAST = 64
"""Bytes of a constant that is looked at: a shorter one may occur twice in a file."""


@dataclass(frozen=True)
class Constant:
    """``operator``: index of the one that reads it in a TFLite file, None in ONNX."""

    data: bytes
    operator: int | None


def constants(model: bytes, form: str) -> list[Constant]:
    """Integer weights of 8 bits of more than one axis, those whose bytes are unique in the file."""
    found = _onnx(model) if form == "onnx" else _tflite(model)
    return [c for c in found if len(c.data) >= LEAST and model.count(c.data) == 1]


def _onnx(model: bytes) -> list[Constant]:
    eight = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    graph = onnx.load_from_string(model).graph
    return [
        Constant(t.raw_data, None)
        for t in graph.initializer
        if t.data_type in eight and len(t.dims) > 1
    ]


def _tflite(model: bytes) -> list[Constant]:
    whole: Any = schema.ModelT.InitFromPackedBuf(model, 0)
    graph = whole.subgraphs[0]
    found = []
    for i, op in enumerate(graph.operators):
        for t in op.inputs:
            tensor = graph.tensors[t]
            data = whole.buffers[tensor.buffer].data
            if data is not None and tensor.type == schema.TensorType.INT8 and len(tensor.shape) > 1:
                found.append(Constant(np.asarray(data, np.uint8).tobytes(), i))
    return found


def reweighted(parent: bytes, change: Callable[[Array], Array]) -> bytes:
    """An FP32 ONNX file whose weights of more than one axis are ``change`` of what they were."""
    model = onnx.load_from_string(parent)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            values = change(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
    found: bytes = model.SerializeToString()
    return found


def packed(model: Any) -> bytes:
    """A TFLite model object as a file."""
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
