"""TFLite: prefixes of the model until one differs, then every operator alone.

Pure but for the devices it is given. Prefixes are scanned from the front, not bisected: operators
erase differences (a clamp, a pooling), so what lies before any boundary had to be scanned as well,
and short prefixes are the cheap ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.diagnosis.pair import Pair, Side, Trial, Tried, alone, must
from orchestrator.diagnosis.result import EQUAL, OPERATOR, Found, OperatorFound
from orchestrator.models import surgery
from orchestrator.models.graph import (
    Array,
    Difference,
    Graph,
    NotLocalisableError,
    difference,
    same_bits,
)

Tensors = dict[str, Array]


def localise(model: bytes, inputs: Sequence[Array], pair: Pair, at_once: int) -> Found:
    """``inputs`` [samples, *shape] in the model's order; ``at_once`` pieces go in one batch.

    Raises NotLocalisableError; InputError E-MODEL-UNREADABLE; what a device raises.
    """
    search = _Search(model, tuple(inputs), pair)
    search.whole()
    last = len(search.graph.operators) - 1
    differs = False
    for chunk in _chunks(last + 1, at_once):
        # a's tensors feed the operators later on; b's are of use only up to the first difference.
        sides = (pair.a,) if differs else (pair.a, pair.b)
        search.prefixes(chunk, sides)
        differs = differs or search.differs(chunk)
    if last not in search.seen_on_b:
        search.prefixes([last], (pair.b,))
    search.check()
    return search.found()


class Prefixes:
    """All prefixes of a model, to be run on one device."""

    def __init__(self, model: bytes) -> None:
        """Raises NotLocalisableError; InputError E-MODEL-UNREADABLE."""
        self.graph: Graph = surgery.read_tflite(model)
        ends = range(len(self.graph.operators))
        pieces = surgery.cut_tflite(model, [(0, end) for end in ends])
        self._able = [piece for piece in pieces if piece.inputs]

    def tensors(self, inputs: Sequence[Array], side: Side) -> Tensors:
        """Every tensor that the device computes. Raises NotLocalisableError, what a device does."""
        tensors: Tensors = dict(zip(self.graph.inputs, inputs, strict=True))
        trials = [
            Trial(str(i), piece.model, tuple(_given(t, tensors) for t in piece.inputs))
            for i, piece in enumerate(self._able)
        ]
        for piece, tried in zip(self._able, side.run(trials), strict=True):
            must(tried, side, "a prefix of the model")
            for tensor, value in zip(piece.outputs, tried.outputs, strict=True):
                tensors.setdefault(tensor, value)
        return tensors


class _Search:
    def __init__(self, model: bytes, inputs: tuple[Array, ...], pair: Pair) -> None:
        self.graph: Graph = surgery.read_tflite(model)
        self._model, self._pair = model, pair
        self._inputs = dict(zip(self.graph.inputs, inputs, strict=True))
        self._tensors: dict[Side, Tensors] = {s: dict(self._inputs) for s in (pair.a, pair.b)}
        self._answers: dict[Side, tuple[Array, ...]] = {}
        self.seen_on_b: set[int] = set()

    def whole(self) -> None:
        """What each device answers without any cut."""
        trial = Trial("whole", self._model, tuple(self._inputs.values()))
        for side, (tried,) in zip(self._sides, self._pair.run([trial]), strict=True):
            self._answers[side] = must(tried, side, "the whole model").outputs

    def prefixes(self, ends: Sequence[int], sides: Sequence[Side]) -> None:
        """Run the prefixes that end with these operators, and keep what they put out."""
        pieces = surgery.cut_tflite(self._model, [(0, end) for end in ends])
        able = [(end, piece) for end, piece in zip(ends, pieces, strict=True) if piece.inputs]
        trials = [
            Trial(str(end), p.model, tuple(_given(t, self._inputs) for t in p.inputs))
            for end, p in able
        ]
        ran = self._pair.run(trials) if len(sides) == 2 else (sides[0].run(trials),)
        for side, answers in zip(sides, ran, strict=True):
            for (end, piece), tried in zip(able, answers, strict=True):
                self._keep(side, end, piece.outputs, tried)
        if self._pair.b in sides:
            self.seen_on_b.update(ends)

    def differs(self, ends: Sequence[int]) -> bool:
        """Whether any of these operators put out something else on b."""
        return any(found.different for end in ends if (found := self._accumulated(end)))

    def check(self) -> None:
        """The last prefix is the whole model, or cutting changes what runs and nothing holds."""
        for side in self._sides:
            ends = [self._tensors[side][t] for t in self.graph.outputs]
            if not all(map(same_bits, ends, self._answers[side])):
                raise NotLocalisableError(f"cutting the model changes its answer on {side.name}")

    def found(self) -> Found:
        kinds = self.graph.operators
        pieces = surgery.cut_tflite(self._model, [(k, k) for k in range(len(kinds))])
        by_itself = alone(self._pair, pieces, self._tensors[self._pair.a], optimise=True)
        operators = tuple(
            OperatorFound(i, op.kind, op.name, self._accumulated(i), one.local, one.as_in_model)
            for i, (op, one) in enumerate(zip(kinds, by_itself, strict=True))
        )
        found = Found(OPERATOR, operators)
        return found if found.first is not None or found.guilty else Found(EQUAL, operators)

    @property
    def _sides(self) -> tuple[Side, Side]:
        return self._pair.a, self._pair.b

    def _keep(self, side: Side, end: int, outputs: Sequence[str], tried: Tried) -> None:
        values = must(tried, side, f"the first {end + 1} operators alone").outputs
        for tensor, value in zip(outputs, values, strict=True):
            known = self._tensors[side].setdefault(tensor, value)
            if not same_bits(known, value):
                where = f"a tensor depends on where the model is cut after it, on {side.name}"
                raise NotLocalisableError(where)

    def _accumulated(self, index: int) -> Difference | None:
        outputs = self.graph.operators[index].outputs
        sides = [self._tensors[side] for side in self._sides]
        known = [t for t in outputs if all(t in tensors for tensors in sides)]
        if not known:
            return None
        return difference(*(tuple(tensors[t] for t in known) for tensors in sides))


def _given(tensor: str, inputs: Tensors) -> Array:
    if tensor not in inputs:
        raise NotLocalisableError(f"tensor {tensor} is read before anything computes it")
    return inputs[tensor]


def _chunks(count: int, size: int) -> Iterator[list[int]]:
    for start in range(0, count, size):
        yield list(range(start, min(start + size, count)))
