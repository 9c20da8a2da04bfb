"""Tiny models in the two forms a Coral lab has them: for the CPU, and compiled for the Edge TPU.

Written with the flatbuffer schema alone. The compiled form is only a form: its program is empty,
and the stand-in of `infra.standins` computes something else than the source does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from infra.standins.build import BuildError, build

SHAPE = [1, 8]
SCALE, ZERO = 0.5, 3
PROGRAM = b"DWN1" * 8


def library() -> Path:
    """The stand-in for libedgetpu, built for this machine."""
    try:
        return build()
    except BuildError as error:
        pytest.skip(str(error))


def codes(samples: int) -> NDArray[np.int8]:
    """Inputs [samples, 8] of these models."""
    return np.random.default_rng(7).integers(-128, 128, (samples, SHAPE[1]), np.int8)


def compiled(path: Path, dequantised: bool = True, scale: float = SCALE) -> Path:
    """``edgetpu-custom-op`` and, if ``dequantised``, a DEQUANTIZE for the CPU behind it."""
    steps = [("edgetpu-custom-op", PROGRAM)] + ([("DEQUANTIZE", b"")] if dequantised else [])
    return _write(path, steps, scale)


def source(path: Path, dequantised: bool = True) -> Path:
    """Takes and gives what `compiled` does, with built-in operators only."""
    return _write(path, [("RELU", b"")] + ([("DEQUANTIZE", b"")] if dequantised else []), SCALE)


def custom(path: Path, kind: str) -> Path:
    """A model with one operator that no runtime knows."""
    return _write(path, [(kind, b"")], SCALE)


def _write(path: Path, steps: list[tuple[str, bytes]], scale: float) -> Path:
    model: Any = schema.ModelT()
    model.version, model.description = 3, "test"
    model.buffers, model.operatorCodes = [schema.BufferT()], [_code(kind) for kind, _ in steps]
    graph: Any = schema.SubGraphT()
    graph.tensors, graph.operators = [_tensor("in", scale, False)], []
    for number, (kind, program) in enumerate(steps):
        last = number == len(steps) - 1
        name = "out" if last else f"between{number}"
        graph.tensors.append(_tensor(name, scale, kind == "DEQUANTIZE"))
        op: Any = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = number, [number], [number + 1]
        op.customOptions = list(program) or None
        graph.operators.append(op)
    graph.inputs, graph.outputs = [0], [len(steps)]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _code(kind: str) -> Any:
    code: Any = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, kind, schema.BuiltinOperator.CUSTOM)
    code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
    code.version = 2 if kind == "DEQUANTIZE" else 1
    if number == schema.BuiltinOperator.CUSTOM:
        code.customCode = kind
    return code


def _tensor(name: str, scale: float, real: bool) -> Any:
    tensor: Any = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, SHAPE, 0
    tensor.type = schema.TensorType.FLOAT32 if real else schema.TensorType.INT8
    if not real:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [ZERO]
    return tensor
