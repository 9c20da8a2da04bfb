"""The weights of a TFLite file, read from the flatbuffer itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from orchestrator.models.inspect_tflite import operator_names
from orchestrator.models.weights import Found, Weights

_TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.FLOAT64: np.float64,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}
_LAYERS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": -1, "FULLY_CONNECTED": 0}
"""Operators whose second input are weights -> axis of their output channels."""


def read_weights(path: Path) -> Weights:
    """Of all subgraphs. Raises whatever flatbuffers and NumPy raise on a damaged file."""
    data = path.read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    found = Found()
    for i in range(model.SubgraphsLength()):
        _Graph(model, model.Subgraphs(i), data, found).read()
    return found.done()


class _Graph:
    def __init__(self, model: Any, graph: Any, data: bytes, found: Found) -> None:
        self.model, self.data, self.found = model, data, found
        self.tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        names = operator_names(model)
        operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
        self.operators = [
            (names[op.OpcodeIndex()], _ints(op, "Inputs"), _ints(op, "Outputs")) for op in operators
        ]

    def read(self) -> None:
        for tensor in self.tensors:
            self._tensor(tensor)
        for name, inputs, outputs in self.operators:
            if name in _LAYERS and len(inputs) > 1:
                weight = self._floats(inputs[1])
                bias = self._floats(inputs[2]) if len(inputs) > 2 else None
                if weight is not None and weight.ndim > 1:
                    axis = _LAYERS[name] % weight.ndim
                    label = _label(self.tensors[inputs[1]])
                    self.found.add_layer(label, weight, axis, bias, list(self._behind(outputs[0])))

    def _tensor(self, tensor: Any) -> None:
        raw = self._bytes(tensor)
        if raw is None:
            return
        name, shape = _label(tensor), tuple(int(n) for n in tensor.ShapeAsNumpy())
        if tensor.Sparsity() is not None:
            self.found.skipped.append(f"{name}: sparse")
            return
        scale, zero, axis = _quantisation(tensor)
        four_bit = tensor.Type() == schema.TensorType.INT4
        if not four_bit and tensor.Type() not in _TYPES:
            return
        if four_bit:
            values: Any = _nibbles(raw, int(np.prod(shape))).reshape(shape)
        else:
            values = raw.view(_TYPES[tensor.Type()]).reshape(shape)
        if values.dtype.kind == "f":
            self.found.add_real(name, values)
        elif scale.size:
            limits = np.iinfo(values.dtype)
            bounds = (-8, 7) if four_bit else (int(limits.min), int(limits.max))
            self.found.add_codes(name, values, scale, zero, axis, bounds)

    def _bytes(self, tensor: Any) -> NDArray[np.uint8] | None:
        """A constant's bytes; None for what is computed. Large files keep them behind the rest."""
        if tensor.IsVariable() or not tensor.Buffer() or tensor.ShapeIsNone():
            return None
        buffer = self.model.Buffers(tensor.Buffer())
        if buffer.Offset() > 1:
            return np.frombuffer(self.data, np.uint8, buffer.Size(), buffer.Offset())
        return np.asarray(buffer.DataAsNumpy()) if buffer.DataLength() else None

    def _floats(self, i: int) -> NDArray[Any] | None:
        tensor = self.tensors[i] if i >= 0 else None
        if tensor is None or tensor.Type() != schema.TensorType.FLOAT32:
            return None
        raw = self._bytes(tensor)
        if raw is None:
            return None
        return raw.view(np.float32).reshape(tuple(int(n) for n in tensor.ShapeAsNumpy()))

    def _behind(self, output: int) -> Iterator[tuple[Any, Any]]:
        """Factor and offset of each MUL and ADD of a constant that alone follows."""
        while len(users := [op for op in self.operators if output in op[1]]) == 1:
            name, inputs, outputs = users[0]
            constant = next((c for i in inputs if (c := self._floats(i)) is not None), None)
            if constant is None or name not in ("MUL", "ADD", "SUB") or inputs[0] != output:
                return
            output = outputs[0]
            if name == "MUL":
                yield constant, 0.0
            else:
                yield 1.0, constant if name == "ADD" else -constant


def _quantisation(tensor: Any) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Scales, zero points and the axis they run along; none where it carries no scale."""
    found = tensor.Quantization()
    if found is None or not found.ScaleLength():
        return np.zeros(0), np.zeros(0), 0
    zero = found.ZeroPointAsNumpy() if found.ZeroPointLength() else np.zeros(1)
    return found.ScaleAsNumpy(), zero, int(found.QuantizedDimension())


def _nibbles(raw: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """Two four-bit integers a byte, the low half first."""
    both = np.stack([raw & 15, raw >> 4], axis=1).ravel()[:count].astype(np.int8)
    return np.where(both > 7, both - 16, both).astype(np.int8)


def _label(tensor: Any) -> str:
    return (tensor.Name() or b"").decode(errors="replace")


def _ints(table: Any, which: str) -> list[int]:
    if not getattr(table, f"{which}Length")():
        return []
    return [int(i) for i in getattr(table, f"{which}AsNumpy")()]
