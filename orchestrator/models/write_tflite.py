"""Small TFLite files straight from the flatbuffer schema: no converter decides what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tensor:
    """``scale``: one number, or one per index of ``axis``; ``data``: of a constant."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: Any = None
    zero: int = 0
    axis: int = 0
    data: NDArray[Any] | None = None


@dataclass(frozen=True)
class Operator:
    """``kind``: a name of BuiltinOperator; any other is a custom operator, with its ``program``.

    ``options``: the schema's ...OptionsT object of a built-in one.
    """

    kind: str
    inputs: Sequence[str]
    output: str
    options: Any = None
    version: int = 1
    program: bytes = b""


def constant(name: str, data: NDArray[Any], scale: Any = None, zero: int = 0, axis: int = 0) -> Any:
    return Tensor(name, data.shape, str(data.dtype), scale, zero, axis, data)


def tflite_file(
    tensors: Sequence[Tensor], operators: Sequence[Operator], inputs: Sequence[str], output: str
) -> bytes:
    """The same bytes for the same arguments."""
    place = {tensor.name: n for n, tensor in enumerate(tensors)}
    kinds = list(dict.fromkeys((op.kind, op.version) for op in operators))
    model: Any = schema.ModelT()
    model.version, model.description = 3, "assay"
    model.operatorCodes = [_code(*kind) for kind in kinds]
    model.buffers = [schema.BufferT()]
    graph: Any = schema.SubGraphT()
    graph.name = "main"
    graph.tensors = [_tensor(tensor, model.buffers) for tensor in tensors]
    graph.operators = [
        _operator(
            op, kinds.index((op.kind, op.version)), [place[name] for name in op.inputs], place
        )
        for op in operators
    ]
    graph.inputs, graph.outputs = [place[name] for name in inputs], [place[output]]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(kind: str, version: int) -> Any:
    code: Any = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, kind, schema.BuiltinOperator.CUSTOM)
    code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
    code.version = version
    if number == schema.BuiltinOperator.CUSTOM:
        code.customCode = kind
    return code


def _operator(op: Operator, code: int, inputs: list[int], place: dict[str, int]) -> Any:
    made: Any = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, inputs, [place[op.output]]
    made.customOptions = list(op.program) or None
    if op.options is not None:
        name = type(op.options).__name__.removesuffix("T")
        made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        made.builtinOptions = op.options
    return made


def _tensor(tensor: Tensor, buffers: list[Any]) -> Any:
    made: Any = schema.TensorT()
    made.name, made.shape, made.buffer = tensor.name, list(tensor.shape), 0
    made.type = getattr(schema.TensorType, tensor.dtype.upper())
    if tensor.data is not None:
        made.buffer = len(buffers)
        buffer: Any = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        buffers.append(buffer)
    if tensor.scale is not None:
        scales = np.atleast_1d(np.asarray(tensor.scale, np.float32))
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = [float(s) for s in scales]
        made.quantization.zeroPoint = [tensor.zero] * len(scales)
        made.quantization.quantizedDimension = tensor.axis
    return made
