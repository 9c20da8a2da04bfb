"""What may be wrong with a unit, as the worker on it would meet it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from device_worker.runtimes import Opener, Runtime
from device_worker.wire import Backend, RuntimeSpec
from orchestrator.variance.lattice import Array
from tests.benchmarks.validity.unit import Fault

Change = Callable[[Array, np.random.Generator], None]
"""Spoils one output, in place."""


def bit_flipped(output: Array, random: np.random.Generator) -> None:
    """One bit of one element."""
    raw = output.reshape(-1).view(np.uint8)
    raw[random.integers(raw.size)] ^= np.uint8(1 << int(random.integers(8)))


def not_a_number(output: Array, random: np.random.Generator) -> None:
    if output.dtype.kind == "f":
        output[...] = np.nan


@dataclass
class Memory(Fault):
    """Bytes of a constant that the unit's memory holds otherwise, in whatever file they lie."""

    good: bytes
    bad: bytes

    def memory(self, model: bytes) -> bytes:
        return model.replace(self.good, self.bad)


@dataclass
class Silent(Fault):
    """Some inputs, always the same ones, come out wrong: ``share`` of all."""

    share: float
    change: Change
    salt: int

    def ran(self, given: Sequence[Array], outputs: list[Array]) -> list[Array]:
        digest = hashlib.sha256(str(self.salt).encode())
        for x in given:
            digest.update(x.tobytes())
        random = np.random.default_rng(int.from_bytes(digest.digest()[:8], "little"))
        if random.random() < self.share:
            self.change(outputs[0], random)
        return outputs


@dataclass
class Flaky(Fault):
    """Now and then an inference comes out wrong: ``share`` of all, other ones each time."""

    share: float
    change: Change
    random: np.random.Generator

    def ran(self, given: Sequence[Array], outputs: list[Array]) -> list[Array]:
        if self.random.random() < self.share:
            self.change(outputs[0], self.random)
        return outputs


@dataclass
class Leak(Fault):
    """A part of what the inference before put out is still there; reset does not help."""

    part: float
    _before: Array | None = field(default=None, init=False)

    def ran(self, given: Sequence[Array], outputs: list[Array]) -> list[Array]:
        now = outputs[0]
        before, self._before = self._before, now.copy()
        if before is None or before.shape != now.shape:
            return outputs
        mixed = now.astype(np.float64) + self.part * before.astype(np.float64)
        if now.dtype.kind in "iu":
            limits = np.iinfo(now.dtype)
            mixed = np.clip(np.rint(mixed), limits.min, limits.max)
        return [mixed.astype(now.dtype), *outputs[1:]]


@dataclass
class Relabelled(Fault):
    """The unit's label file names other classes: its outputs come in another order."""

    order: Sequence[int]

    def ran(self, given: Sequence[Array], outputs: list[Array]) -> list[Array]:
        return [x[..., list(self.order)] if x.shape == (1, len(self.order)) else x for x in outputs]


@dataclass
class Misplaced(Fault):
    """Answers are kept under the wrong samples. ``order``: number of samples -> their order."""

    order: Callable[[int], Array]

    def collected(self, outputs: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(x[self.order(len(x))] for x in outputs)


class LostDelegate(Fault):
    """The runtime does without XNNPACK where its defaults have it, and says nothing."""

    def opened(self, path: str, spec: RuntimeSpec, opener: Opener) -> Runtime:
        lost = opener(path, replace(spec, kernels="builtin"))
        lost._spec = spec  # type: ignore[attr-defined]  # it believes that it has the defaults
        return lost


@dataclass
class FloatCompiled(Fault):
    """An accelerator whose compiler computes the file in float and keeps its program to itself."""

    file: bytes
    parent: bytes

    def memory(self, model: bytes) -> bytes:
        return self.parent if model == self.file else model

    def backend(self, told: Backend) -> Backend:
        return replace(told, operators={}, plan_sha256=None)
