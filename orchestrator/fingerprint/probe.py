"""A probe: a small model, what to feed it, and what each arithmetic would answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_worker.batch import Recipe, made
from orchestrator.fingerprint.golden import Ints


@dataclass(frozen=True)
class Feed:
    """An input [runs, *tensor shape] that the device makes itself: a ``Recipe``, see there.

    ``sent``: it goes to the device as it is, for a runtime may have changed how that computes.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    low: int
    high: int
    seed: int = 0
    scale: float = 1.0
    sent: bool = False

    @property
    def recipe(self) -> Recipe:
        shape = list(self.shape)
        return Recipe(self.kind, self.low, self.high, self.dtype, shape, self.seed, self.scale)

    def codes(self) -> Ints:
        """The integers before they are cast and scaled, [runs, *tensor shape]."""
        return np.asarray(made(replace(self.recipe, dtype="int64")), np.int64)

    def values(self) -> NDArray[Any]:
        """What the model is fed, [runs, *tensor shape]."""
        return made(self.recipe)


Expected = Callable[[], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Probe:
    """``expected``: mode -> what the model would put out, [runs, *output shape].

    ``family``: what operator, types and granularity it asks about. ``step``: a float output counts
    in steps of this size, ``expected`` as well; what lies between them was computed in floating
    point. ``graph``: the runtime's optimised graph is wanted as well.
    """

    name: str
    family: str
    model_format: str
    model: bytes = field(repr=False)
    feeds: tuple[Feed, ...]
    expected: Expected = field(default=dict, repr=False)
    step: float | None = None
    graph: bool = False
