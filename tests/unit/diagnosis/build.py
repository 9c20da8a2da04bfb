"""A small residual net in ONNX, quantised as S8 Q/DQ pairs, made from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

CHANNELS, SIDE = 4, 6


class _Net:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._random = np.random.RandomState(7)

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def quantised(self, name: str, scale: float = 0.05) -> str:
        """``name`` through a Q/DQ pair; the name of the result."""
        grid = [
            self.constant(f"{name}_scale", np.float32(scale)),
            self.constant(f"{name}_zero", np.int8(3)),
        ]
        self.nodes.append(make_node("QuantizeLinear", [name, *grid], [f"{name}_q"], f"{name}_Q"))
        self.nodes.append(
            make_node("DequantizeLinear", [f"{name}_q", *grid], [f"{name}_dq"], f"{name}_DQ")
        )
        return f"{name}_dq"

    def conv(self, name: str, source: str) -> str:
        weights = self._random.randint(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
        scale = self.constant(f"{name}_ws", np.float32(0.01))
        zero = self.constant(f"{name}_wz", np.int8(0))
        given = [self.constant(f"{name}_w", weights), scale, zero]
        self.nodes.append(make_node("DequantizeLinear", given, [f"{name}_w_dq"], f"{name}_W"))
        self.nodes.append(
            make_node("Conv", [source, f"{name}_w_dq"], [name], name, pads=[1, 1, 1, 1])
        )
        return self.quantised(name)


def residual() -> bytes:
    """conv1 → conv2, added to what conv1 read: [1, 4, 6, 6] float to float on an int8 lattice.

    What an optimiser makes of its branch depends on whether it may keep signed codes.
    """
    net = _Net()
    start = net.quantised("x")
    inner = net.conv("conv2", net.conv("conv1", start))
    net.nodes.append(make_node("Add", [inner, start], ["add"], "add"))
    net.nodes.append(make_node("Identity", [net.quantised("add", 0.1)], ["y"], "end"))
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = make_graph(
        net.nodes,
        "residual",
        [make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        net.constants,
    )
    model = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def parent() -> bytes:
    """What `residual` was quantised from: the same convolutions and sum in float32."""
    model = onnx.load_from_string(residual())
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = [
        numpy_helper.from_array(values[f"{name}_w"] * np.float32(0.01), f"{name}_w")
        for name in ("conv1", "conv2")
    ]
    pads = [1, 1, 1, 1]
    nodes = [
        make_node("Conv", ["x", "conv1_w"], ["conv1"], "conv1", pads=pads),
        make_node("Conv", ["conv1", "conv2_w"], ["conv2"], "conv2", pads=pads),
        make_node("Add", ["conv2", "x"], ["add"], "add"),
        make_node("Identity", ["add"], ["y"], "end"),
    ]
    graph = make_graph(nodes, "parent", model.graph.input, model.graph.output, weights)
    whole = make_model(graph, opset_imports=[make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(whole)
    data: bytes = whole.SerializeToString()
    return data


def samples(count: int) -> Any:
    """float32 [count, 1, 4, 6, 6]."""
    values = np.random.RandomState(1).uniform(-6, 6, (count, 1, CHANNELS, SIDE, SIDE))
    return values.astype(np.float32)
