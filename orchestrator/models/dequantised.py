"""Operators of a Q/DQ file as its own numbers mean them, in float. Pure: bytes in, bytes out.

A Q/DQ file that is not optimised is that arithmetic: its constants are dequantised and its
operators are float ones. So of each operator of the optimised graph, what it stands for is cut from
the file as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from orchestrator.models.graph import Meanings, Piece
from orchestrator.models.optimised import integer
from orchestrator.models.tensor_roles import File

_NOTHING = Piece(b"", (), ())


def pieces(
    file: bytes, alone: Sequence[Piece], means: Meanings, shapes: Mapping[str, Sequence[int]]
) -> list[Piece]:
    """One for each of ``alone``, the operators of the optimised graph; ``shapes``: of the parent.

    Its ``inputs`` are among those of ``alone`` and its output is that one's first, but all of them
    are reals and in the layout of the parent. A piece without outputs where the file does not say
    what the operator means, or says it in integers.
    """
    model = onnx.load_from_string(file)
    source = File(model.graph)
    return [_piece(model, source, piece, means.stands_for, shapes) for piece in alone]


def _piece(
    model: Any,
    source: File,
    piece: Piece,
    stands_for: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
) -> Piece:
    if not piece.inputs or not {*piece.inputs, piece.outputs[0]} <= set(stands_for):
        return _NOTHING
    theirs = stands_for[piece.outputs[0]]
    reads: dict[str, str] = {}
    for tensor in piece.inputs:
        reads.setdefault(source.meaning[stands_for[tensor]], tensor)
    end = source.meaning[theirs]
    nodes = _back(source, end, reads)
    if nodes is None:
        return _NOTHING
    used = [t for node in nodes for t in node.input]
    inputs = [name for name in reads if name in used]
    graph = onnx.GraphProto(name="meant", node=nodes)
    graph.initializer.extend(source.values[t] for t in dict.fromkeys(used) if t in source.values)
    graph.input.extend(
        onnx.helper.make_tensor_value_info(
            name, onnx.TensorProto.FLOAT, list(shapes[stands_for[reads[name]]])
        )
        for name in inputs
    )
    graph.output.append(onnx.ValueInfoProto(name=end))
    made = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, graph=graph
    )
    data = made.SerializeToString()
    return Piece(data, tuple(reads[name] for name in inputs), piece.outputs[:1])


def _back(source: File, end: str, reads: Mapping[str, str]) -> list[Any] | None:
    """Nodes between ``reads`` and ``end``, each after those that it needs.

    They read the former by these names. None where a node needs more than they give, or computes
    with integers.
    """
    found: dict[str, Any] = {}

    def visit(tensor: str) -> bool:
        if tensor in source.values or not tensor:
            return True
        node = source.makers.get(tensor)
        if node is None or integer(node.op_type) or any(a.HasField("g") for a in node.attribute):
            return False
        if node.output[0] in found:
            return True
        own = onnx.NodeProto()
        own.CopyFrom(node)
        own.input[:] = [
            name if (name := source.meaning.get(t, t)) in reads else t for t in own.input
        ]
        if not all(t in reads or visit(t) for t in own.input):
            return False
        found[node.output[0]] = own
        return True

    return list(found.values()) if end not in reads and visit(end) else None
