"""A TFLite file and its parent on one device, layer by layer.

Both run as prefixes, which runtimes do not notice. Operators are matched by their order, so parent
and file must hold the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.diagnosis.pair import Side, Trial
from orchestrator.diagnosis.search_tflite import Prefixes, Tensors
from orchestrator.diagnosis.taps import Place, Seen, reals, rounded
from orchestrator.models import surgery
from orchestrator.models.graph import Array, Graph, NotLocalisableError, Piece

MOVES = ("QUANTIZE", "DEQUANTIZE")
"""Operators of quantised files alone, which change the form of a tensor and not what it says."""


class TfliteSubject:
    """A `taps.Subject`."""

    def __init__(self, model: bytes, parent: bytes, side: Side) -> None:
        """Raises NotLocalisableError; InputError E-MODEL-UNREADABLE."""
        self._side, self.row = side, side.name
        self._model, self._parent = Prefixes(model), Prefixes(parent)
        self._graph = graph = self._model.graph
        self._twins = _twins(graph, self._parent.graph)
        spans = [(i, i) for i in range(len(graph.operators))]
        self._alone = [
            (piece, meant)
            for operator, piece, meant in zip(
                graph.operators,
                surgery.cut_tflite(model, spans),
                surgery.meant_tflite(model),
                strict=True,
            )
            if operator.kind not in MOVES and piece.inputs
        ]

    def see(self, inputs: Sequence[Array], golden: Sequence[Array]) -> list[Seen]:
        whole = self._model.tensors(inputs, self._side)
        real = self._parent.tensors(golden, self._side)
        truth = {t: real[twin] for t, twin in self._twins.items() if twin in real}
        given = self._given(truth, whole)
        able = [(p, meant) for p, meant in self._alone if set(p.inputs) <= set(given)]
        alone = self._run([p for p, _ in able], given)
        numbers = {t: self._real(t, codes) for t, codes in given.items()}
        meant = self._run([m for _, m in able if m.outputs], numbers)
        return [
            Seen(place, truth[t], whole[t], alone.get(t), meant.get(t))
            for t, place in self._places()
            if t in truth and t in whole and (whole[t].dtype.kind == "f" or place.lattice)
        ]

    def _places(self) -> list[tuple[str, Place]]:
        graph, twins = self._graph, self._twins
        found = [
            (t, Place(None, "input", t, twins[t], graph.lattices[t]))
            for t in graph.inputs
            if t in graph.lattices
        ]
        for i, operator in enumerate(graph.operators):
            if operator.kind not in MOVES:
                t = operator.outputs[0]
                lattice = graph.lattices.get(t)
                found.append((t, Place(i, operator.kind, operator.name, twins[t], lattice)))
        return found

    def _given(self, truth: Tensors, whole: Tensors) -> Tensors:
        """What operators read: the parent's values as the model holds them."""
        read = {t for piece, _ in self._alone for t in piece.inputs if t in truth and t in whole}
        lattices = self._graph.lattices
        return {t: rounded(truth[t], whole[t].dtype, lattices.get(t)) for t in read}

    def _real(self, tensor: str, values: Array) -> Array:
        lattice = self._graph.lattices.get(tensor)
        return values if lattice is None else reals(values, lattice)

    def _run(self, pieces: Sequence[Piece], given: Tensors) -> Tensors:
        """Each operator's first output."""
        trials = [
            Trial(str(i), piece.model, tuple(given[t] for t in piece.inputs))
            for i, piece in enumerate(pieces)
        ]
        ran = zip(pieces, self._side.run(trials), strict=True)
        return {p.outputs[0]: one.outputs[0] for p, one in ran if one.error is None}


def _twins(graph: Graph, parent: Graph) -> dict[str, str]:
    """Tensor of the file -> the parent's that it stands for."""
    theirs = [o for o in parent.operators if o.kind not in MOVES]
    mine = [o for o in graph.operators if o.kind not in MOVES]
    forms = [
        (len(whole.inputs), [(o.kind, len(o.outputs)) for o in operators])
        for whole, operators in ((graph, mine), (parent, theirs))
    ]
    if forms[0] != forms[1]:
        raise NotLocalisableError("the FP32 parent does not have the file's operators in its order")
    twins, partner = dict(zip(graph.inputs, parent.inputs, strict=True)), iter(theirs)
    for operator in graph.operators:
        if operator.kind in MOVES:
            if operator.inputs and operator.inputs[0] in twins:
                twins[operator.outputs[0]] = twins[operator.inputs[0]]
        else:
            twins.update(zip(operator.outputs, next(partner).outputs, strict=True))
    return twins
