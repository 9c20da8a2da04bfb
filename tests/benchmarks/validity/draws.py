"""What planters are made of: a file of a net on some samples, and rows that answer it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from device_worker.wire import Delegate, RuntimeSpec
from orchestrator.variance.lattice import Array
from tests.benchmarks.validity.case import (
    INT8,
    Case,
    Net,
    Place,
    Rows,
    Seen,
    Undrawn,
    fed,
    seen,
)
from tests.benchmarks.validity.unit import Fault, Unit
from tests.benchmarks.validity.world import Random, World, rows, spec_of

Planter = Callable[[World, Random], Iterator[Case | Undrawn]]
"""Cases for ever, or until an `Undrawn` says that the kind cannot come about here.

Every draw is yielded, so that the caller can stop.
"""
SAFE = ("u8u8.onnx", "u8s8_rr.onnx")
"""ONNX files without a product that can leave int16."""
SIZES = (50, 100, 200, 500, 1000)
ORDER = 7
OTHER = Place(device="host-2")
NPU = Place(
    device="npu",
    device_class="npu",
    environment={"machine": "aarch64", "isa_flags": ["asimd", "npu"], "cores": []},
)
_LIBRARY = Delegate("npu", "libnpu.so", sha256="0" * 64)
Passes = tuple[str, dict[str, Any], tuple[Array, ...]]


def accelerated(place: Place) -> Place:
    """The same, and what ran is a delegate's doing."""
    return replace(place, spec=RuntimeSpec("litert", delegate=_LIBRARY))


@dataclass(frozen=True, eq=False)
class Draw:
    """``x`` [n, 1, ...]: samples ``at`` as the file takes them."""

    world: World
    net: Net
    file: str
    model: bytes
    at: Rows
    x: Array

    @property
    def form(self) -> str:
        return self.file.rpartition(".")[2]

    def sound(
        self,
        place: Place | None = None,
        *,
        twin: bool = False,
        spec: RuntimeSpec | None = None,
        passes: bool = False,
    ) -> Seen:
        unit = self.world.sound(spec or spec_of(self.file), twin)
        return self.row(unit, place, passes=passes)

    def row(
        self, unit: Unit, place: Place | None, *, passes: bool = False, x: Array | None = None
    ) -> Seen:
        """``passes``: it is also asked three times over, and in another order."""
        given = self.x if x is None else x
        told = unit.answer(self.model, given)
        more: list[Passes] = []
        if passes:
            more = [
                ("repeat:3", *unit.passes(self.model, given, repeat=3)),
                (f"order:{ORDER}", *unit.passes(self.model, given, order=ORDER)),
            ]
        return seen(unit, told, self.model, self.form, place, more)

    def faulty(self, fault: Fault) -> Unit:
        return self.world.unit(spec_of(self.file), fault)


def draw(
    world: World, random: Random, *files: str, sizes: Sequence[int] = SIZES, model: bytes = b""
) -> Draw:
    """A file of a net, of those named (by default the sound ones); ``model`` in its place."""
    wanted = files or (INT8, *SAFE)
    known = having(world, *wanted)
    net, file = known[int(random.integers(len(known)))]
    return of(world, random, net, file, model or net.files[file], sizes)


def having(world: World, *files: str) -> list[tuple[Net, str]]:
    """Each net with each of these files that it has: quantising some nets costs them too much."""
    return [(net, file) for net in world.nets for file in files if file in net.files]


def of(
    world: World, random: Random, net: Net, file: str, model: bytes, sizes: Sequence[int] = SIZES
) -> Draw:
    at = rows(net, random, sizes)
    return Draw(world, net, file, model, at, fed(net.images[at], model, file.rpartition(".")[2]))


def rotated(count: int, moved: Array) -> Array:
    """0..count-1 with the places ``moved`` handed round."""
    order = np.arange(count)
    order[moved] = np.roll(moved, 1)
    return order
