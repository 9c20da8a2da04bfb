"""Conditions: what is done to a device or to the order of its inputs while a cell runs.

Matrices, stores and reports name one by a short text such as ``repeat:100``: its kind, and behind
the colon what the kind needs. What a condition means for planning, running and judging are its
properties; no other room looks at its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

CLEAN = "clean"
"""The condition of a row's answers: every sample once, on a device at rest."""

HOLD_S = 60.0
"""How long a soak holds its temperature, in seconds, unless its text says otherwise."""


@dataclass(frozen=True)
class Heat:
    """A temperature that the device is brought to, and held at before the first sample."""

    target_c: float
    hold_s: float = HOLD_S

    def above(self, ceiling_c: float | None) -> str | None:
        """Why a device that is stopped at ``ceiling_c`` can never get there, or None."""
        if ceiling_c is None or self.target_c < ceiling_c:
            return None
        return f"a run is stopped above {ceiling_c:g} °C, before it could soak"


@dataclass(frozen=True)
class Draw:
    """``count`` samples of a set, drawn by ``seed``."""

    count: int
    seed: int


@dataclass(frozen=True)
class Condition:
    """A condition as planning, running and judging see it.

    ``passes``: how often the samples are run. ``few``: only the first ``repeat_samples`` of them.
    ``draw``: only those drawn. ``order``: seed of the order they are run in; the first one is then
    run again at the end. ``heat`` and ``mode`` (a power mode) are asked of the device.

    ``timed``: latencies are those of ordinary use. ``neutral``: no factor, for it changes nothing
    that an answer depends on. ``recorded``: the field of an attempt's observation that shows that
    the condition was met, and what is said where it is missing.
    """

    text: str
    passes: int = 1
    few: bool = False
    draw: Draw | None = None
    order: int | None = None
    heat: Heat | None = None
    mode: str | None = None
    timed: bool = False
    neutral: bool = False
    recorded: tuple[Literal["soak", "power", "order"], str] | None = None

    @property
    def factor(self) -> str:
        """The condition as a factor that may change an answer."""
        return CLEAN if self.neutral else self.text

    def inferences(self, samples: int, first: int) -> int:
        """Of a set of ``samples``; ``first``: how many a condition of few samples runs."""
        if self.draw is not None:
            return min(samples, self.draw.count)
        once = min(samples, first) if self.few else samples
        return once * self.passes + (self.order is not None)

    def tensor(self, inputs: str) -> str:
        """The name of what a model is fed of an input set: the set, or a part that is drawn."""
        return inputs if self.draw is None else f"{inputs}/{self.text}"


class ConditionError(ValueError):
    """A text is no condition; ``fix`` lists the forms there are."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r:.40} is not a known condition")
        self.fix = "; ".join(kind.form for kind in KINDS.values())


@dataclass(frozen=True)
class Kind:
    """A kind of condition.

    ``form``: how it is written, for errors. ``parse``: the whole text and what follows its colon
    (None without a colon) -> the condition, None if it is not of this form.
    """

    name: str
    form: str
    parse: Callable[[str, str | None], Condition | None]


KINDS: dict[str, Kind] = {}
"""Every kind of condition by its name, in the order in which errors list them."""


def register(kind: Kind) -> Kind:
    """Make a kind known. Raises ValueError for a name that is taken."""
    if kind.name in KINDS:
        raise ValueError(f"a condition named {kind.name!r} is registered already")
    KINDS[kind.name] = kind
    return kind


@cache
def parse(text: str) -> Condition:
    """The condition that ``text`` names. Raises ConditionError."""
    name, colon, rest = text.partition(":")
    kind = KINDS.get(name)
    found = kind.parse(text, rest if colon else None) if kind else None
    if found is None:
        raise ConditionError(text)
    return found
