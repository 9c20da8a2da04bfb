"""The weights of an ONNX file: QDQ, QOperator, dynamically quantised, or float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from orchestrator.models.weights import Found, Weights

_BOUNDS = {"int4": (-8, 7), "uint4": (0, 15)}


class _Operands(NamedTuple):
    """Places of a quantised operator's inputs; ``given``: of the other operand's scale."""

    weight: int
    scale: int
    zero: int
    given: int | None = None
    bias: int | None = None
    axis: int = 0


_QOPERATORS = {
    "QLinearConv": _Operands(3, 4, 5, 1, 8),
    "QLinearMatMul": _Operands(3, 4, 5, axis=-1),
    "QGemm": _Operands(3, 4, 5, 1, 6, axis=-1),
    "MatMulIntegerToFloat": _Operands(1, 3, 5, axis=-1),
    "DynamicQuantizeMatMul": _Operands(1, 2, 3, axis=-1),
}
_INTEGER = {"MatMulInteger": -1, "ConvInteger": 0}
"""Operators that give bare sums -> axis of their weight's channels; the scale comes behind."""
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def read_weights(path: Path) -> Weights:
    """Of the main graph. Raises whatever the parser raises on a file that is none."""
    return _Graph(onnx.load(str(path), load_external_data=False).graph).weights()


class _Graph:
    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self.constants: dict[str, NDArray[Any]] = {}
        for tensor in graph.initializer:
            self.constants[tensor.name] = numpy_helper.to_array(tensor)
        for node in self.nodes:
            value = _attributes(node).get("value") if node.op_type == "Constant" else None
            if isinstance(value, onnx.TensorProto):
                self.constants[node.output[0]] = numpy_helper.to_array(value)
        self.users: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.found = Found()

    def weights(self) -> Weights:
        parameters: set[str] = set()  # scales and zero points are floats too, and no weights
        for node in self.nodes:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                self._linear(node)
                parameters |= set(node.input[1:])
            elif node.op_type in _QOPERATORS:
                self._qoperator(node, _QOPERATORS[node.op_type])
                parameters |= set(node.input)
            elif node.op_type in _INTEGER:
                self._integer(node, _INTEGER[node.op_type])
            elif node.op_type in _LAYERS:
                self._layer(node)
        for name, values in self.constants.items():
            if values.dtype.kind == "f" and name not in parameters:
                self.found.add_real(name, values)
        return self.found.done()

    def _linear(self, node: Any) -> None:
        """A constant behind DequantizeLinear, or a float one in front of QuantizeLinear."""
        values, scale = self._constant(node, 0), self._constant(node, 1)
        if values is None or scale is None:
            return
        name, axis = node.input[0], _attributes(node).get("axis", 1)
        if scale.ndim > 1:
            self.found.skipped.append(f"{name}: quantised in blocks")
            return
        zero = self._constant(node, 2)
        if node.op_type == "DequantizeLinear":
            self._add(name, values, scale, zero, axis)
            return
        zero = np.zeros(1, np.uint8) if zero is None else zero
        along = np.ones(values.ndim, int)
        if scale.size > 1:
            along[axis] = scale.size
        low, high = _bounds(zero)
        steps = np.rint(values / scale.reshape(along)) + zero.astype(np.int64).reshape(along)
        self._add(name, np.clip(steps, low, high).astype(zero.dtype), scale, zero, axis)

    def _qoperator(self, node: Any, at: _Operands) -> None:
        weight, scale = self._constant(node, at.weight), self._constant(node, at.scale)
        if weight is None or scale is None:
            return
        self._add(node.input[at.weight], weight, scale, self._constant(node, at.zero), at.axis)
        if at.given is None or at.bias is None:
            return
        bias, given = self._constant(node, at.bias), self._constant(node, at.given)
        if bias is not None and given is not None:
            self._add(node.input[at.bias], bias, scale.ravel() * given.ravel(), None, 0)

    def _integer(self, node: Any, axis: int) -> None:
        """Dynamic quantisation: sums -> Cast -> Mul by (activation's scale x weight's scale)."""
        weight = self._constant(node, 1)
        if weight is None:
            return
        for cast in self.users.get(node.output[0], []):
            for times in self.users.get(cast.output[0], []):
                for product in map(self.makers.get, times.input):
                    if product is None or {times.op_type, product.op_type} != {"Mul"}:
                        continue
                    for name in product.input:
                        if name in self.constants:
                            zero = self._constant(node, 3)
                            scale = self.constants[name]
                            self._add(node.input[1], weight, scale, zero, axis)
                            return
        self.found.skipped.append(f"{node.input[1]}: no constant scale follows {node.op_type}")

    def _add(self, name: str, codes: Any, scale: Any, zero: Any, axis: int) -> None:
        if codes.dtype.kind not in "iu" and codes.dtype.name not in _BOUNDS:
            self.found.skipped.append(f"{name}: {codes.dtype} codes are no integers")
            return
        bounds = _bounds(codes)
        if codes.dtype.name in _BOUNDS:
            codes = codes.astype(np.int8)
        self.found.add_codes(
            name, codes, scale, np.zeros(1) if zero is None else zero, axis, bounds
        )

    def _layer(self, node: Any) -> None:
        weight, attributes = self._constant(node, 1), _attributes(node)
        if weight is None or weight.ndim < 2 or weight.dtype.kind != "f":
            return
        axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": weight.ndim - 1}.get(node.op_type)
        if axis is None:
            axis = 0 if attributes.get("transB") else 1
        behind = list(self._behind(node.output[0]))
        self.found.add_layer(node.input[1], weight, axis, self._constant(node, 2), behind)

    def _behind(self, name: str) -> Iterator[tuple[Any, Any]]:
        """Factor and offset of each operator that alone follows and can be folded."""
        while len(users := self.users.get(name, [])) == 1:
            node, name = users[0], users[0].output[0]
            if node.op_type == "BatchNormalization":
                parts = [self._constant(node, i) for i in range(1, 5)]
                if any(p is None for p in parts):
                    return
                gamma, beta, mean, variance = (p.astype(float) for p in parts if p is not None)
                epsilon = _attributes(node).get("epsilon", 1e-5)
                factor = gamma / np.sqrt(variance + epsilon)
                yield factor, beta - mean * factor
                continue
            constant = next((self.constants[n] for n in node.input if n in self.constants), None)
            first = bool(node.input) and node.input[0] in self.constants
            if constant is None or (first and node.op_type in ("Div", "Sub")):
                return
            value = constant.astype(float)
            match node.op_type:
                case "Mul":
                    yield value, 0.0
                case "Div":
                    yield 1 / value, 0.0
                case "Add":
                    yield 1.0, value
                case "Sub":
                    yield 1.0, -value
                case _:
                    return

    def _constant(self, node: Any, i: int) -> NDArray[Any] | None:
        return self.constants.get(node.input[i]) if len(node.input) > i else None


def _bounds(codes: NDArray[Any]) -> tuple[int, int]:
    if codes.dtype.name in _BOUNDS:
        return _BOUNDS[codes.dtype.name]
    return int(np.iinfo(codes.dtype).min), int(np.iinfo(codes.dtype).max)


def _attributes(node: Any) -> Mapping[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
