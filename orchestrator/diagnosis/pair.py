"""The two devices as the search sees them: something that runs small models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.models.graph import (
    Array,
    Difference,
    NotLocalisableError,
    Piece,
    difference,
    same_bits,
)


@dataclass(frozen=True, eq=False)
class Trial:
    """``inputs`` in the model's order, each [samples, *shape of the tensor].

    ``graph``: bring what the optimiser makes of the model.
    """

    name: str
    model: bytes = field(repr=False)
    inputs: tuple[Array, ...]
    graph: bool = False


@dataclass(frozen=True, eq=False)
class Tried:
    """``outputs`` [samples, *shape] each; ``plan``: hash of what the runtime made of the model.

    ``error``: why there is no answer.
    """

    outputs: tuple[Array, ...] = ()
    graph: bytes | None = None
    plan: str | None = None
    error: str | None = None


class Side(Protocol):
    """One device with one runtime. ``name`` is for messages."""

    @property
    def name(self) -> str: ...

    def run(self, trials: Sequence[Trial], *, optimise: bool = True) -> list[Tried]:
        """An answer for each trial. ``optimise`` False: run graphs as they are.

        May be called of two sides at once. Raises what talking to a device raises.
        """


@dataclass(frozen=True)
class Pair:
    a: Side
    b: Side

    def run(
        self, trials: Sequence[Trial], *, optimise: bool = True
    ) -> tuple[list[Tried], list[Tried]]:
        """The same trials on both, side by side."""
        with ThreadPoolExecutor(2) as pool:
            found = [pool.submit(side.run, trials, optimise=optimise) for side in (self.a, self.b)]
            return found[0].result(), found[1].result()


def must(tried: Tried, side: Side, what: str) -> Tried:
    """Raises NotLocalisableError for a piece without which there is no answer."""
    if tried.error is not None:
        raise NotLocalisableError(f"{side.name} does not run {what}: {tried.error}")
    return tried


@dataclass(frozen=True)
class Alone:
    """One operator by itself on equal inputs; both None where it cannot be run by itself."""

    local: Difference | None = None
    as_in_model: bool | None = None


def alone(
    pair: Pair, pieces: Sequence[Piece], tensors: Mapping[str, Array], *, optimise: bool
) -> list[Alone]:
    """Both devices run every piece on a's ``tensors``, which are those of the whole model."""
    able = {
        i: Trial(str(i), piece.model, tuple(tensors[t] for t in piece.inputs))
        for i, piece in enumerate(pieces)
        if piece.inputs and all(t in tensors for t in piece.inputs)
    }
    on_both = pair.run(list(able.values()), optimise=optimise)
    answers = dict(zip(able, zip(*on_both, strict=True), strict=True))
    return [
        _compared(piece, *answers[i], tensors) if i in answers else Alone()
        for i, piece in enumerate(pieces)
    ]


def _compared(piece: Piece, on_a: Tried, on_b: Tried, tensors: Mapping[str, Array]) -> Alone:
    if on_a.error is not None or on_b.error is not None:
        return Alone()
    known = [
        (y, tensors[t]) for t, y in zip(piece.outputs, on_a.outputs, strict=True) if t in tensors
    ]
    same = all(same_bits(mine, whole) for mine, whole in known)
    return Alone(difference(on_a.outputs, on_b.outputs), same)
