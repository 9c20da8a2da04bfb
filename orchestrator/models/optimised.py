"""Graphs that ONNX Runtime has optimised already: read, tapped, taken apart, compared.

Only such a graph may be touched, and only to be run without optimisation: what is done to the file
that the optimiser has not seen yet changes which kernels it chooses. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx

from orchestrator.models.graph import (
    DEQUANTISE,
    QUANTISE,
    Form,
    Graph,
    Layer,
    NotLocalisableError,
    Operator,
    Piece,
    PlanDifference,
)

_RENAMED = re.compile(r"(_token_\d+|/duplicated)+$")
"""What the optimiser appends to the name of a node that it puts in another's place."""
_INTEGER = ("QLinear", "QGemm", "Integer", "QAttention", "NBits")


def integer(kind: str) -> bool:
    """Whether an operator of that kind computes on integer codes."""
    return any(mark in kind for mark in _INTEGER)


def read(data: bytes) -> Graph:
    """Raises what the parser raises for bytes that are no model."""
    graph = onnx.load_from_string(data).graph
    constants = {tensor.name for tensor in graph.initializer}
    return Graph(
        tuple(_given(graph, constants)),
        tuple(value.name for value in graph.output),
        tuple(
            Operator(
                node.op_type,
                node_name(node),
                tuple(dict.fromkeys(t for t in _reads(node) if t not in constants)),
                tuple(t for t in node.output if t),
            )
            for node in graph.node
        ),
    )


def tap(data: bytes, only: Container[str] | None = None) -> Piece:
    """The graph with every tensor that it computes as an output, its own outputs first.

    ``only``: no other tensors than these.
    """
    model = onnx.load_from_string(data)
    graph = model.graph
    outputs = [value.name for value in graph.output]
    inner = [
        t
        for node in graph.node
        for t in node.output
        if t and t not in outputs and (only is None or t in only)
    ]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = tuple(_given(graph, constants))
    return Piece(model.SerializeToString(), inputs, (*outputs, *inner))


def alone(data: bytes, tensors: Mapping[str, Form], *, weights: bool = False) -> list[Piece]:
    """Every operator as a model of its own; ``tensors``: form of each that is computed.

    ``weights``: what is computed of constants alone (weights that are dequantised) is made in the
    model that reads it, and is no input. Raises NotLocalisableError for a tensor that ONNX has no
    type for.
    """
    model = onnx.load_from_string(data)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    made = constant_nodes(model.graph) if weights else {}
    pieces = []
    for node in model.graph.node:
        nodes = [node] if node.output[0] in made else [*_before(node, made), node]
        inside = {t for each in nodes for t in each.output}
        reads = [t for each in nodes for t in _reads(each) if t not in inside]
        inputs = list(dict.fromkeys(t for t in reads if t not in constants))
        outputs = [t for t in node.output if t]
        graph = onnx.GraphProto(name="alone", node=nodes)
        graph.initializer.extend(constants[t] for t in dict.fromkeys(reads) if t in constants)
        graph.input.extend(_typed(t, *tensors[t]) for t in inputs)
        graph.output.extend(onnx.ValueInfoProto(name=t) for t in outputs)
        piece = onnx.ModelProto(
            ir_version=model.ir_version, opset_import=model.opset_import, graph=graph
        )
        pieces.append(Piece(piece.SerializeToString(), tuple(inputs), tuple(outputs)))
    return pieces


def constant_nodes(graph: Any) -> dict[str, Any]:
    """Tensor -> the node that computes it, of those that are computed of constants alone."""
    known = {tensor.name for tensor in graph.initializer}
    found: dict[str, Any] = {}
    for node in graph.node:
        if all(t in known for t in _reads(node)):
            found |= dict.fromkeys(node.output, node)
            known.update(node.output)
    return found


def _before(node: Any, made: Mapping[str, Any]) -> list[Any]:
    """Nodes that make the constants which the node reads, each after those that it needs."""
    found: dict[str, Any] = {}

    def visit(reader: Any) -> None:
        for maker in (made[t] for t in _reads(reader) if t in made):
            if maker.output[0] not in found:
                visit(maker)
                found[maker.output[0]] = maker

    visit(node)
    return list(found.values())


def compare(a: bytes, b: bytes) -> PlanDifference:
    """What two devices make of one model, by what the optimiser leaves of its operators' names."""
    sides = [onnx.load_from_string(data).graph.node for data in (a, b)]
    kinds = [Counter(node.op_type for node in nodes) for nodes in sides]
    named = [
        {node_name(n): n.op_type for n in nodes if n.op_type not in (QUANTISE, DEQUANTISE)}
        for nodes in sides
    ]
    layers = [
        Layer(name, kind, named[1][name])
        for name, kind in named[0].items()
        if name in named[1] and integer(kind) != integer(named[1][name])
    ]
    same = Counter(
        kind for name, kind in named[0].items() if integer(kind) and integer(named[1].get(name, ""))
    )
    return PlanDifference(
        tuple(layers), dict(kinds[0] - kinds[1]), dict(kinds[1] - kinds[0]), dict(same)
    )


def node_name(node: Any) -> str:
    """The operator of the model that the node came from, as far as its name still tells."""
    return _RENAMED.sub("", node.name) or str(node.output[0])


def _given(graph: Any, constants: set[str]) -> Iterator[str]:
    return (value.name for value in graph.input if value.name not in constants)


def _reads(node: Any) -> Iterator[str]:
    """Tensors the node reads, those of graphs inside it included."""
    yield from (t for t in node.input if t)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            inside = {v.name for v in (*graph.input, *graph.initializer)}
            inside |= {t for inner in graph.node for t in inner.output}
            yield from (t for inner in graph.node for t in _reads(inner) if t not in inside)


def _typed(name: str, dtype: str, shape: Iterable[int]) -> Any:
    try:
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    except (KeyError, TypeError, ValueError):
        raise NotLocalisableError(f"tensor {name!r} has the type {dtype}") from None
    return onnx.helper.make_tensor_value_info(name, kind, list(shape))
