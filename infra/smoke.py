"""`python -m infra.smoke`: the two models with which `assay devices check` tries a runtime.

Each computes, per sample x (int8 [1, 4]), one small integer matrix product with a bias. Values are
chosen so that no step rounds, saturates or overflows: whatever kernel is chosen, there is one right
answer. Written with the schemas alone, so that no converter decides what stands in the files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from orchestrator.devices.smoke import BIAS, FOLDER, WEIGHTS
from orchestrator.models.write_tflite import Operator, Tensor, constant, tflite_file


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
    tensors = [
        Tensor("x", (1, 4), "int8", 1.0),
        constant("w", np.array(WEIGHTS, np.int8).T, 1.0),  # [outputs, inputs]
        constant("b", np.array(BIAS, np.int32), 1.0),
        Tensor("y", (1, 3), "int8", 1.0),
    ]
    # Version 4 is the first that takes int8.
    options = schema.FullyConnectedOptionsT()
    step = Operator("FULLY_CONNECTED", ["x", "w", "b"], "y", options, version=4)
    return tflite_file(tensors, [step], ["x"], "y")


def main(folder: Path = FOLDER) -> int:
    for name, data in (("smoke.onnx", onnx_model()), ("smoke.tflite", tflite_model())):
        (folder / name).write_bytes(data)
        print(f"{folder / name}: {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
