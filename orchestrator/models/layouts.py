"""The same numbers in another order: OHWI and OIHW, transposed, behind a flattened picture.

Axes of length 1 carry nothing and are left out of all shapes here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.weights import Floats

MAX_AXES = 5
"""Of more axes only the order as it is: the permutations of six are 720."""

Floats64 = NDArray[np.float64]
Places = tuple[NDArray[np.int64], ...]


@dataclass(frozen=True)
class Layout:
    """How the parent's array, length-1 axes aside, is read in the order of the other's.

    ``axes``: as of numpy.transpose. ``block``: the last or first axis (``on``) of a matrix counts
    ``block`` channels fastest where the parent counts them slowest: a flattened NHWC picture beside
    a flattened NCHW one.
    """

    axes: tuple[int, ...]
    block: int = 1
    on: int = 0

    def at(self, source: Floats, places: Places) -> Floats64:
        """The elements at ``places`` of the other's array."""
        turned = self._turned(source)
        if self.block == 1:
            return turned[places].astype(np.float64)
        moved = list(places)
        moved[self.on] = self._moved(places[self.on], turned.shape[self.on])
        return turned[tuple(moved)].astype(np.float64)

    def whole(self, source: Floats, shape: tuple[int, ...]) -> Floats:
        """All of it, of the other's ``shape``."""
        turned = self._turned(source)
        if self.block == 1:
            return turned
        order = self._moved(np.arange(shape[self.on]), shape[self.on])
        return np.take(turned, order, axis=self.on)

    def _turned(self, source: Floats) -> Floats:
        return source.reshape(squeezed(source.shape)).transpose(self.axes)

    def _moved(self, index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        return (index % self.block) * (length // self.block) + index // self.block


def layouts(source: tuple[int, ...], target: tuple[int, ...], rare: bool) -> Iterator[Layout]:
    """Every way to read an array of shape ``source`` as one of ``target``, which is squeezed.

    ``rare``: instead, those behind a flattened picture, which are many.
    """
    source = squeezed(source)
    if len(source) > MAX_AXES:
        axes = tuple(range(len(source)))
        yield from [Layout(axes)] if source == target and not rare else []
        return
    for axes in permutations(range(len(source))):
        if tuple(source[a] for a in axes) != target:
            continue
        if not rare:
            yield Layout(axes)
        elif len(source) == 2:
            for on, length in enumerate(target):
                for block in range(2, length // 2 + 1):
                    if length % block == 0:
                        yield Layout(axes, block, on)


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of length 1, yet with one axis at least."""
    return tuple(n for n in shape if n != 1) or (1,)


def lengths(shape: tuple[int, ...]) -> tuple[int, ...]:
    """What shapes have in common that differ in the order of their axes."""
    return tuple(sorted(squeezed(shape)))


def spread(shape: tuple[int, ...], most: int) -> Places:
    """Indices of the same elements, ``most`` at most, of every array of a squeezed shape."""
    size = int(np.prod(shape))
    # A fixed seed: an answer must not change when it is asked again.
    chosen = np.random.default_rng(0).integers(size, size=most) if size > most else range(size)
    return np.unravel_index(np.asarray(chosen), shape)
