"""TFLite files written tensor by tensor with the flatbuffer schema, no training framework."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray


class Flat:
    """One graph: add tensors, then operators between them, then write it."""

    def __init__(self) -> None:
        self._model: Any = schema.ModelT()
        self._model.version, self._model.description = 3, "test"
        self._model.buffers, self._model.operatorCodes = [schema.BufferT()], []
        self._graph: Any = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model.subgraphs = [self._graph]

    def another(self) -> Flat:
        """A further graph of the same file, for operators that call one."""
        made = Flat()
        made._model = self._model
        self._model.subgraphs.append(made._graph)
        return made

    def ends(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """What the graph takes and gives."""
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: str = "FLOAT32",
        scale: Sequence[float] | NDArray[Any] | None = None,
        zero: Sequence[int] | None = None,
        axis: int = 0,
        variable: bool = False,
    ) -> int:
        """A computed tensor; its index."""
        tensor: Any = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type, tensor.isVariable = getattr(schema.TensorType, kind), variable
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [float(s) for s in scale]
            tensor.quantization.zeroPoint = list(zero or [0] * len(scale))
            tensor.quantization.quantizedDimension = axis
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def constant(
        self, name: str, values: NDArray[Any], kind: str | None = None, **quantisation: Any
    ) -> int:
        """A tensor with its values; ``kind``: INT4 for bytes that hold two each."""
        index = self.tensor(name, values.shape, kind or values.dtype.name.upper(), **quantisation)
        buffer: Any = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        self._graph.tensors[index].buffer = len(self._model.buffers) - 1
        return index

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        version: int = 1,
    ) -> None:
        """One operator; ``options``: of the schema's object types, e.g. Conv2DOptionsT."""
        code: Any = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        self._model.operatorCodes.append(code)
        op: Any = schema.OperatorT()
        op.opcodeIndex = len(self._model.operatorCodes) - 1
        op.inputs, op.outputs = list(inputs), list(outputs)
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            op.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            op.builtinOptions = options
        self._graph.operators.append(op)

    def write(self, path: Path, inputs: Sequence[int], outputs: Sequence[int]) -> Path:
        self.ends(inputs, outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path
