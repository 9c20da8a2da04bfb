"""`python -m infra.smoke`: the two models with which `assay devices check` tries a runtime.

Each computes, per sample x (int8 [1, 4]), one small integer matrix product with a bias. Values are
chosen so that no step rounds, saturates or overflows: whatever kernel is chosen, there is one right
answer. Written with the schemas alone, so that no converter decides what stands in the files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from orchestrator.devices.smoke import BIAS, FOLDER, WEIGHTS


def onnx_model() -> bytes:
    """y = x @ w + b with int32 y: MatMulInteger, Add, Identity."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMulInteger", ["x", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["sum"]),
            helper.make_node("Identity", ["sum"], ["y"]),
        ],
        "smoke",
        [helper.make_tensor_value_info("x", TensorProto.INT8, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 3])],
        [
            numpy_helper.from_array(np.array(WEIGHTS, np.int8), "w"),
            numpy_helper.from_array(np.array(BIAS, np.int32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def tflite_model() -> bytes:
    """The same as one int8 FULLY_CONNECTED; all scales are 1 and all zero points 0."""
    model: Any = schema.ModelT()
    model.version, model.description = 3, "smoke"
    code: Any = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4  # the first that takes int8
    model.operatorCodes = [code]
    weights = np.array(WEIGHTS, np.int8).T  # [outputs, inputs]
    model.buffers = [
        schema.BufferT(),
        _buffer(weights.tobytes()),
        _buffer(np.array(BIAS, np.int32).tobytes()),
    ]
    graph: Any = schema.SubGraphT()
    graph.tensors = [
        _tensor("x", [1, 4], schema.TensorType.INT8, 0),
        _tensor("w", [3, 4], schema.TensorType.INT8, 1),
        _tensor("b", [3], schema.TensorType.INT32, 2),
        _tensor("y", [1, 3], schema.TensorType.INT8, 0),
    ]
    step: Any = schema.OperatorT()
    step.opcodeIndex, step.inputs, step.outputs = 0, [0, 1, 2], [3]
    step.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    step.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators, graph.inputs, graph.outputs = [step], [0], [3]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _buffer(data: bytes) -> Any:
    buffer: Any = schema.BufferT()
    buffer.data = list(data)
    return buffer


def _tensor(name: str, shape: list[int], kind: int, buffer: int) -> Any:
    tensor: Any = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [1.0], [0]
    return tensor


def main(folder: Path = FOLDER) -> int:
    for name, data in (("smoke.onnx", onnx_model()), ("smoke.tflite", tflite_model())):
        (folder / name).write_bytes(data)
        print(f"{folder / name}: {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
