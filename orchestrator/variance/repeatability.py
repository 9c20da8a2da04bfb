"""One unit against itself.

Later passes against the first; hot, throttled or shuffled passes against clean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.variance.lattice import bits
from orchestrator.variance.observation import Observation


@dataclass(frozen=True)
class Repeated:
    """Repeated passes against the first.

    ``count`` passes over ``samples`` samples, the first included; ``mismatches`` of ``compared``
    later outputs differ from the first pass.
    """

    count: int
    samples: int
    compared: int
    mismatches: int


def repeated(cell: Observation) -> Repeated | None:
    """What a cell says of repeatability: ``repeat:N`` by its passes, a soak by its inferences.

    None where nothing was run twice. Only whole passes of a soak count as such.
    """
    count, samples = cell.repeats, cell.repeat_samples
    compared, mismatches = (count - 1) * samples, cell.repeat_mismatches
    if cell.soak is not None:
        count += cell.soak.inferences // max(samples, 1)
        compared += cell.soak.inferences
        mismatches += cell.soak.mismatches
    return Repeated(count, samples, compared, mismatches) if compared else None


@dataclass(frozen=True)
class Unlike:
    """``k`` of ``n`` samples have other output bytes."""

    k: int
    n: int


def unlike(cell: Observation, clean: Observation) -> Unlike | None:
    """A cell against a clean one, over the samples that both ran; None where there are none."""
    if not cell.outputs or len(cell.outputs) != len(clean.outputs):
        return None
    n, all_of_them = (min(len(o.values) for o in side.outputs) for side in (cell, clean))
    positions = np.arange(n) if cell.samples is None else cell.samples[:n]
    positions = positions[positions < all_of_them]
    n = len(positions)
    if not n:
        return None
    different = np.zeros(n, dtype=bool)
    for mine, other in zip(cell.outputs, clean.outputs, strict=True):
        a, b = mine.values, other.values
        if (a.dtype, a.shape[1:]) != (b.dtype, b.shape[1:]):
            return Unlike(n, n)
        different |= (bits(mine)[:n] != bits(other)[positions]).any(axis=1)
    return Unlike(int(different.sum()), n)


Finding = Literal["state carry-over", "order dependence"]


@dataclass(frozen=True)
class Reordered:
    """How often the order of samples changed a unit's answers.

    ``k`` of ``n`` outputs of shuffled passes have other bytes than the clean cell's; of ``again_n``
    samples run first and again at the end, ``again_k`` gave other bytes then.
    """

    k: int
    n: int
    again_k: int
    again_n: int

    @property
    def finding(self) -> Finding | None:
        """What the order changed. A unit that does not repeat itself looks like carry-over, too."""
        if self.again_k:
            return "state carry-over"
        return "order dependence" if self.k else None


def reordered(cells: Sequence[Observation], clean: Observation | None) -> Reordered | None:
    """The order cells among ``cells`` of one row; None where there are none."""
    shuffled = [(c, c.order) for c in cells if c.order is not None]
    if not shuffled:
        return None
    apart = [found for c, _ in shuffled if clean is not None and (found := unlike(c, clean))]
    return Reordered(
        sum(found.k for found in apart),
        sum(found.n for found in apart),
        sum(not order.same for _, order in shuffled),
        len(shuffled),
    )
