"""What each tensor of an optimised ONNX graph stands for in the FP32 parent. Pure: bytes in.

Names of tensors do not say: the optimiser calls the codes behind a fused convolution after the node
of the convolution, which in the parent is the name of something else. Nodes keep their names, and
the quantised file, before it is optimised, keeps the parent's names around its Q/DQ pairs. So a
tensor is taken for what the node that makes it, or the one that reads it, has there in the file;
and only if its shape and its scale agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from orchestrator.models.graph import DEQUANTISE, MOVES, QUANTISE, Form, Lattice, Meanings
from orchestrator.models.optimised import constant_nodes, node_name

_KEEPS = (
    *("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool"),
    *("NhwcMaxPool", "Slice", "Gather", "DepthToSpace", "SpaceToDepth", "Split"),
)
"""Operators whose output is on the lattice of their first input."""
_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh")
_TWO = {0: (1, 2), 3: (4, 5), -1: (6, 7)}
_UNARY = ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax", "ReduceMean")
_LATTICES: Mapping[str, Mapping[int, tuple[int, int]]] = {
    QUANTISE: {-1: (1, 2)},
    DEQUANTISE: {0: (1, 2)},
    "QGemm": {0: (1, 2), -1: (7, 8)},
    "QLinearConcat": {-1: (0, 1)},
    **{f"QLinear{kind}": _TWO for kind in ("Conv", "MatMul", "Add", "Mul")},
    **{f"QLinear{kind}": {0: (1, 2), -1: (3, 4)} for kind in _UNARY},
}
"""Where an operator's quantisation parameters are among its inputs, by kind.

Kind -> which tensor (its place among the inputs, -1 the output) -> where its scale and zero point
are.
"""


def read(
    file: bytes, optimised: bytes, forms: Mapping[str, Form], parent: Mapping[str, Sequence[int]]
) -> Meanings:
    """``forms``: dtype and shape of every tensor of the optimised graph; ``parent``: shapes there.

    Raises what the parser raises for bytes that are no model.
    """
    graph = _Graph(onnx.load_from_string(optimised).graph)
    source = File(onnx.load_from_string(file).graph)
    lattices, found = graph.lattices(), dict[str, str]()
    for tensor, candidates in graph.candidates(source, forms).items():
        for meaning in candidates:
            lattice, theirs = lattices.get(tensor), source.lattices_of.get(meaning)
            if lattice is not None and theirs is not None and lattice.scale != theirs.scale:
                continue
            fits = [
                name
                for name in source.names[meaning]
                if name in parent and _alike(forms[tensor][1], parent[name])
            ]
            if fits:
                found[tensor] = fits[0]
                break
    known = {t: x for t, x in lattices.items() if t in forms}
    return Meanings(found, known, {t: code for t, code in graph.dequantised() if t in forms})


def _alike(shape: Sequence[int], parents: Sequence[int]) -> bool:
    """Whether the shapes are equal, or are with the channels last."""
    last = [*parents[:1], *parents[2:], *parents[1:2]]
    return list(shape) in (list(parents), last)


class _Graph:
    """Nodes, and which tensors hold values at run time."""

    def __init__(self, graph: Any) -> None:
        self.nodes = list(graph.node)
        self.values = {t.name: t for t in graph.initializer}
        self.constants = {*self.values, *constant_nodes(graph)}
        self.inputs = [v.name for v in graph.input if v.name not in self.constants]

    def data(self, node: Any) -> list[str]:
        """Tensors the node reads that hold values at run time."""
        return [t for t in node.input if t and t not in self.constants]

    def lattices(self) -> dict[str, Lattice]:
        found: dict[str, Lattice] = {}
        for node in self.nodes:
            for place, (scale, zero) in _LATTICES.get(node.op_type, {}).items():
                lattice = self._lattice(node, scale, zero)
                tensor = node.output[0] if place < 0 else node.input[place]
                if lattice is not None and tensor not in self.constants:
                    found.setdefault(tensor, lattice)
            if node.op_type in _KEEPS and node.input[0] in found:
                for tensor in node.output:
                    found.setdefault(tensor, found[node.input[0]])
        return found

    def dequantised(self) -> Iterator[tuple[str, str]]:
        for node in self.nodes:
            if node.op_type == DEQUANTISE and node.input[0] not in self.constants:
                yield node.output[0], node.input[0]

    def candidates(self, source: File, forms: Mapping[str, Form]) -> dict[str, list[str]]:
        """Tensor -> what it may stand for in the file, the surest first."""
        found: dict[str, list[str]] = {t: [] for t in forms}

        def may(tensor: str, meaning: str | None) -> None:
            if meaning is not None and tensor in found and meaning not in found[tensor]:
                found[tensor].append(meaning)

        for tensor, (dtype, _) in forms.items():
            if (np.dtype(dtype).kind == "f") != (tensor in source.codes):
                may(tensor, source.meaning.get(tensor))
        for node in self.nodes:
            twin = source.named.get(node_name(node))
            if twin is None:
                continue
            for tensor, theirs in zip(node.output, twin.output, strict=False):
                coded = tensor in forms and np.dtype(forms[tensor][0]).kind in "iu"
                may(tensor, source.settled(theirs) if coded else source.meaning.get(theirs))
        for node in self.nodes:
            twin = source.named.get(node_name(node))
            if twin is not None:
                for tensor, theirs in zip(self.data(node), source.data(twin), strict=False):
                    may(tensor, source.meaning.get(theirs))
        for nodes, back in ((self.nodes, False), (reversed(self.nodes), True)):
            for node in nodes:
                if node.op_type in MOVES and self.data(node):
                    ends = (self.data(node)[0], node.output[0])
                    start, end = reversed(ends) if back else ends
                    for meaning in found.get(start, []):
                        may(end, meaning)
        return found

    def _lattice(self, node: Any, scale: int, zero: int) -> Lattice | None:
        """None where a parameter is none, is computed, or there is one for each channel."""
        if len(node.input) <= scale or node.input[scale] not in self.values:
            return None
        steps = numpy_helper.to_array(self.values[node.input[scale]])
        point = 0
        if len(node.input) > zero and node.input[zero]:
            if node.input[zero] not in self.values:
                return None
            points = numpy_helper.to_array(self.values[node.input[zero]])
            point = int(points.ravel()[0]) if points.size else 0
        return Lattice(float(steps.ravel()[0]), point) if steps.size == 1 else None


class File(_Graph):
    """The quantised file as it is.

    A tensor behind Q or DQ means what it was made of; ``names``: all tensors of one meaning, as the
    parent's name for it may be before or behind the pair.
    """

    def __init__(self, graph: Any) -> None:
        super().__init__(graph)
        self.meaning = {t: t for t in self.inputs}
        self.names: dict[str, list[str]] = {t: [t] for t in self.inputs}
        self.codes: set[str] = set()
        self._readers: Counter[str] = Counter()
        self._activated: dict[str, str] = {}
        lattices = super().lattices()
        self.lattices_of: dict[str, Lattice] = {}
        for node in self.nodes:
            data = self.data(node)
            self._readers.update(data)
            for tensor in node.output:
                move = node.op_type in (QUANTISE, DEQUANTISE) and data
                meaning = self.meaning.get(data[0], data[0]) if move else tensor
                self.meaning[tensor] = meaning
                self.names.setdefault(meaning, []).append(tensor)
                if node.op_type == QUANTISE:
                    self.codes.add(tensor)
                    if tensor in lattices:
                        self.lattices_of.setdefault(self.meaning[tensor], lattices[tensor])
            if node.op_type in _ACTIVATIONS and data:
                self._activated[data[0]] = node.output[0]
        self.makers = {t: node for node in self.nodes for t in node.output}
        self.named = {node_name(node): node for node in self.nodes}

    def settled(self, tensor: str) -> str | None:
        """What the codes behind an operator stand for: it may have taken its activation in."""
        meaning = self.meaning.get(tensor)
        while (
            meaning in self._activated
            and meaning not in self.lattices_of
            and self._readers[meaning] == 1
        ):
            meaning = self._activated[meaning]
        return meaning
