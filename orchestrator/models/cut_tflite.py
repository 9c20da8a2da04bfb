"""TFLite files cut at operators. Pure: bytes in, bytes out.

A prefix ends with every tensor that the rest of the model still reads, so a runtime may do to its
operators what it does to them in the whole model, and no more.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from orchestrator.models.graph import Graph, Lattice, NotLocalisableError, Operator, Piece
from orchestrator.models.inspect import EDGETPU_OP
from orchestrator.models.inspect_tflite import operator_names

_IDENTIFIER = b"TFL3"


def read(data: bytes) -> Graph:
    """Read a TFLite file as a graph that can be cut.

    Raises NotLocalisableError for what was compiled, keeps state or has several graphs; whatever
    flatbuffers raises for a file that is none.
    """
    main = _Main(data)
    return Graph(
        tuple(map(str, main.graph.inputs)),
        tuple(map(str, main.graph.outputs)),
        tuple(
            Operator(
                kind,
                (main.graph.tensors[op.outputs[0]].name or b"").decode(errors="replace"),
                tuple(str(t) for t in main.read_by(op)),
                tuple(str(t) for t in op.outputs),
            )
            for kind, op in zip(main.kinds, main.graph.operators, strict=True)
        ),
        main.lattices(),
    )


def cut(data: bytes, spans: Iterable[tuple[int, int]]) -> list[Piece]:
    """One model for each (first, last): these operators and those between. Raises as `read`."""
    main = _Main(data)
    return [main.cut(first, last) for first, last in spans]


def meant(data: bytes) -> list[Piece]:
    """Every operator as a model of its own that computes in float what its integers stand for.

    Constants are floats too; a piece is without outputs where that is not known. Raises as `read`.
    """
    main = _Main(data)
    pieces = []
    for i in range(len(main.kinds)):
        try:
            pieces.append(main.cut(i, i, real=True))
        except _NoRealValueError:
            pieces.append(Piece(b"", (), ()))
    return pieces


class _NoRealValueError(Exception):
    """A tensor whose reals are not known."""


class _Main:
    """The one graph of a model. Tensors are known by their index in it."""

    def __init__(self, data: bytes) -> None:
        self._model = schema.ModelT.InitFromPackedBuf(data, 0)
        names = operator_names(schema.Model.GetRootAs(data, 0))
        if len(self._model.subgraphs) != 1:
            raise NotLocalisableError("its operators call other graphs (loops, branches, set-up)")
        self.graph = self._model.subgraphs[0]
        self.kinds = [names[op.opcodeIndex] for op in self.graph.operators]
        if EDGETPU_OP in self.kinds:
            raise NotLocalisableError("it was compiled for an Edge TPU, whose program is closed")
        stateful = any(tensor.isVariable for tensor in self.graph.tensors)
        if stateful or "VAR_HANDLE" in self.kinds:
            raise NotLocalisableError("it keeps state between samples")
        if any(buffer.offset > 1 for buffer in self._model.buffers):
            raise NotLocalisableError("its constants lie outside of its flatbuffer")

    def read_by(self, op: Any) -> list[int]:
        """Tensors that the operator reads and that are no constants, each once."""
        return list(dict.fromkeys(t for t in _all(op.inputs) if not self._constant(t)))

    def lattices(self) -> dict[str, Lattice]:
        found = {}
        for i, tensor in enumerate(self.graph.tensors):
            scale = None if tensor.quantization is None else tensor.quantization.scale
            if scale is not None and len(scale) == 1 and scale[0] and not self._constant(i):
                points = tensor.quantization.zeroPoint
                zero = int(points[0]) if points is not None and len(points) else 0
                found[str(i)] = Lattice(float(scale[0]), zero)
        return found

    def cut(self, first: int, last: int, *, real: bool = False) -> Piece:
        """``real``: every tensor with a scale as the reals that it stands for."""
        graph = self.graph
        kept = graph.operators[first : last + 1]
        made = [t for op in kept for t in op.outputs]
        inputs = [
            t for t in dict.fromkeys(t for op in kept for t in self.read_by(op)) if t not in made
        ]
        later = {t for op in graph.operators[last + 1 :] for t in op.inputs} | set(graph.outputs)
        outputs = [t for t in made if t in later] or list(kept[-1].outputs)
        used = sorted({t for op in kept for t in (*_all(op.inputs), *op.outputs)})
        model = self._only(kept, used, inputs, outputs)
        if real:
            _dequantise(model)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        return Piece(bytes(builder.Output()), tuple(map(str, inputs)), tuple(map(str, outputs)))

    def _only(
        self, kept: Sequence[Any], used: list[int], inputs: list[int], outputs: list[int]
    ) -> Any:
        """The model reduced to some operators: tensors, buffers and codes are numbered anew."""
        place = {tensor: i for i, tensor in enumerate(used)}
        codes = sorted({op.opcodeIndex for op in kept})
        model, graph = copy.copy(self._model), copy.copy(self.graph)
        model.operatorCodes = [self._model.operatorCodes[code] for code in codes]
        # Buffer 0 is the empty one; a tensor without a constant refers to it.
        model.buffers, graph.tensors = [schema.BufferT()], []
        for tensor in used:
            moved = copy.copy(self.graph.tensors[tensor])
            if self._constant(tensor):
                model.buffers.append(self._model.buffers[moved.buffer])
                moved.buffer = len(model.buffers) - 1
            else:
                moved.buffer = 0
            graph.tensors.append(moved)
        graph.operators = [_moved(op, place, codes) for op in kept]
        graph.inputs, graph.outputs = [place[t] for t in inputs], [place[t] for t in outputs]
        model.subgraphs = [graph]
        # They name tensors and buffers by the old numbers.
        model.metadata = model.metadataBuffer = model.signatureDefs = None
        return model

    def _constant(self, tensor: int) -> bool:
        data = self._model.buffers[self.graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0


_INTEGERS: dict[int, str] = {
    schema.TensorType.INT8: "<i1",
    schema.TensorType.UINT8: "<u1",
    schema.TensorType.INT16: "<i2",
    schema.TensorType.INT32: "<i4",
    schema.TensorType.INT64: "<i8",
}


def _dequantise(model: Any) -> None:
    """Codes become reals, (q - zero point) * scale, in the tensors that have a scale.

    Those without one (axes, shapes, indices) are no codes. Raises _NoRealValueError for types of
    which several codes share a byte.
    """
    for tensor in model.subgraphs[0].tensors:
        grid, tensor.quantization = tensor.quantization, None
        if grid is None or grid.scale is None or not len(grid.scale):
            continue
        if tensor.type not in _INTEGERS:
            raise _NoRealValueError
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            q = np.frombuffer(bytes(data), _INTEGERS[tensor.type]).reshape(tensor.shape)
            points = [0] if grid.zeroPoint is None or not len(grid.zeroPoint) else grid.zeroPoint
            along = [1] * q.ndim
            if len(grid.scale) > 1:
                along[grid.quantizedDimension] = -1
            scale, zero = (np.asarray(x, np.float64) for x in (grid.scale, points))
            zero = zero.reshape(along) if zero.size == scale.size else zero[:1]
            real = schema.BufferT()
            real.data = ((q - zero) * scale.reshape(along)).astype("<f4").tobytes()
            model.buffers[tensor.buffer] = real
        tensor.type = schema.TensorType.FLOAT32


def _all(tensors: Iterable[int]) -> list[int]:
    """Without -1, which stands for an optional input that is not there."""
    return [int(t) for t in tensors if t >= 0]


def _moved(op: Any, place: dict[int, int], codes: list[int]) -> Any:
    moved = copy.copy(op)
    moved.opcodeIndex = codes.index(op.opcodeIndex)
    moved.inputs = [place.get(t, -1) for t in op.inputs]
    moved.outputs = [place[t] for t in op.outputs]
    moved.intermediates, moved.debugMetadataIndex = None, -1
    return moved
