"""The second corpus, on which no rule is tuned: other nets, other ways to spoil, other severities.

Severities are drawn from ranges, not from a few values; units fail in bursts, stick, lose runs of
weights; ranges are cut at percentiles of what a layer computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from device_worker.wire import RuntimeSpec
from orchestrator.diagnosis.evidence import Mechanism
from orchestrator.diagnosis.taps import CASCADE, RANGE_COLLAPSE
from orchestrator.variance.lattice import Array
from tests.benchmarks.validity import faults, nulls
from tests.benchmarks.validity.case import INT8, Case, Kind, Place, Undrawn, case, fed
from tests.benchmarks.validity.defects import FLOAT_QDQ, Runs, faulty, lost_delegate, real
from tests.benchmarks.validity.drawn import CALIBRATION, DENSE, MEAN, Drawn, Step, to_tflite
from tests.benchmarks.validity.draws import SAFE, Draw, Planter, accelerated, draw, of
from tests.benchmarks.validity.inner import EVERYWHERE, INPUT, cut, twins
from tests.benchmarks.validity.recalibrate import Range, activations
from tests.benchmarks.validity.unit import Fault
from tests.benchmarks.validity.weights import constants, reweighted
from tests.benchmarks.validity.world import (
    BAD,
    HASWELL,
    LITERT,
    OLD,
    ORT,
    Random,
    World,
    spec_of,
)

BUILTIN = RuntimeSpec("litert", kernels="builtin")
SECOND = Place(device="unit-b")
SOC = Place(
    device="soc",
    device_class="soc",
    environment={"machine": "riscv64", "isa_flags": ["rv64gcv"], "cores": []},
)
SIZES = (60, 120, 240, 600)


@dataclass
class Bursts(Fault):
    """Inferences come out wrong several in a row. ``share`` of all, over a long time."""

    share: float
    random: Random
    _left: int = field(default=0, init=False)

    LENGTH = 4

    def ran(self, given: Sequence[Array], outputs: list[Array]) -> list[Array]:
        if self._left == 0 and self.random.random() < self.share / self.LENGTH:
            self._left = self.LENGTH
        if self._left:
            self._left -= 1
            flat = outputs[0].reshape(-1)
            flat[self.random.integers(flat.size)] = flat[self.random.integers(flat.size)]
            flat[0] += flat.dtype.type(1 if flat[0] < flat.dtype.type(100) else -1)
        return outputs


@dataclass
class Highest(Fault):
    """Every output is the larger of its own and a part of the inference before."""

    part: float
    _before: Array | None = field(default=None, init=False)

    def ran(self, given: Sequence[Array], outputs: list[Array]) -> list[Array]:
        now, before = outputs[0], self._before
        self._before = now.copy()
        if before is None or before.shape != now.shape:
            return outputs
        low = np.float64(now.min())
        faded = low + self.part * (before.astype(np.float64) - low)
        return [np.maximum(now, np.floor(faded).astype(now.dtype)), *outputs[1:]]


def share(random: Random, low: float = 0.02, high: float = 0.6) -> float:
    """Log-uniform."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def stuck(output: Array, random: Random) -> None:
    """One element sticks at the largest value of the output."""
    flat = output.reshape(-1)
    flat[int(random.integers(flat.size))] = flat.max()


def infinite(output: Array, random: Random) -> None:
    if output.dtype.kind == "f":
        output.reshape(-1)[int(random.integers(output.size))] = np.inf


def lost_weights(world: World, random: Random) -> Iterator[Case | Undrawn]:
    """A run of bytes of a constant reads as zero in one unit's memory. Severity: share of it."""
    kind = Kind("lost weights", Mechanism.FAULT, "unit")
    while True:
        d = draw(world, random, INT8, *SAFE, sizes=SIZES)
        known = constants(d.model, d.form)
        one, part = known[int(random.integers(len(known)))], share(random, 0.005, 1.0)
        length = max(1, round(part * len(one.data)))
        start = int(random.integers(len(one.data) - length + 1))
        bad = one.data[:start] + bytes(length) + one.data[start + length :]
        if bad == one.data:
            yield Undrawn(kind.name, "the weights were zero before")
            continue
        fault = faults.Memory(one.data, bad)
        yield from faulty(kind, d, fault, part, SECOND, operator=one.operator)


def stuck_output(world: World, random: Random) -> Iterator[Case]:
    """On some inputs an output sticks. Severity: share of samples."""
    kind = Kind("stuck output", Mechanism.FAULT, "unit")
    while True:
        part = share(random)
        fault = faults.Silent(part, stuck, int(random.integers(1 << 30)))
        yield from faulty(kind, draw(world, random, INT8, *SAFE, sizes=SIZES), fault, part, SECOND)


def bursts(world: World, random: Random) -> Iterator[Case]:
    kind = Kind("bursts of faults", Mechanism.FAULT, "unit")
    while True:
        part, d = share(random), draw(world, random, INT8, sizes=SIZES)
        yield from faulty(kind, d, Bursts(part, random), part, SECOND, passes=True)


def unsteady(world: World, random: Random) -> Iterator[Case]:
    kind = Kind("unsteady accelerator", Mechanism.NONDETERMINISM, "unit")
    while True:
        part, d = share(random), draw(world, random, INT8, sizes=SIZES)
        there, here = accelerated(SECOND), accelerated(Place())
        yield from faulty(kind, d, Bursts(part, random), part, there, usual=here, passes=True)


def low_power(world: World, random: Random) -> Iterator[Case]:
    kind = Kind("fault at low power", Mechanism.FAULT, "condition")
    while True:
        part = share(random)
        fault = faults.Silent(part, stuck, int(random.integers(1 << 30)))
        place = Place(condition="power:15W")
        yield from faulty(kind, draw(world, random, INT8, sizes=SIZES), fault, part, place)


def other_classes(world: World, random: Random) -> Iterator[Case | Undrawn]:
    """One unit has its classes in another order, any but the right one."""
    kind = Kind("other order of classes", Mechanism.LAYOUT, "unit")
    while True:
        d = draw(world, random, INT8, *SAFE, sizes=SIZES)
        order = random.permutation(d.sound().output.values.shape[1])
        moved = int((order != np.arange(len(order))).sum())
        if not moved:
            yield Undrawn(kind.name, "the order is the right one")
            continue
        yield from faulty(kind, d, faults.Relabelled(order.tolist()), moved, SECOND)


def other_decoding(world: World, random: Random) -> Iterator[Case]:
    """One unit shifts, blurs, or coarsens what it is given, by an amount. Severity: how far."""
    kind = Kind("other decoding", Mechanism.DECODE, "unit", real=True)

    def blurred(x: Array, a: float) -> Array:
        mixed: Array = x + np.float32(a) * (np.roll(x, 1, 1) + np.roll(x, -1, 2) - 2 * x)
        return mixed

    ways: Sequence[Callable[[Array, float], Array]] = (
        lambda x, a: np.roll(x, 1 + int(4 * a), axis=2),
        blurred,
        lambda x, a: np.round(x * (2 + 30 * (1 - a))) / np.float32(2 + 30 * (1 - a)),
    )
    while True:
        d, amount = draw(world, random, INT8, *SAFE, sizes=SIZES), float(random.uniform(0.05, 0.5))
        images = d.net.images[d.at]
        spoilt = ways[int(random.integers(len(ways)))](images, amount).astype(np.float32)
        unit = world.sound(spec_of(d.file), True)
        b = d.row(unit, SECOND, x=fed(np.ascontiguousarray(spoilt), d.model, d.form))
        yield case(kind, d.net, d.file, d.model, d.sound(), b, d.at, severity=amount)


def fading(world: World, random: Random) -> Iterator[Case]:
    kind = Kind("fading state", Mechanism.STATE, "unit")
    while True:
        part, d = float(random.uniform(0.3, 0.95)), draw(world, random, INT8, sizes=SIZES)
        yield from faulty(kind, d, Highest(part), part, SECOND, passes=True)


def late(world: World, random: Random) -> Iterator[Case]:
    """Answers of a unit come late: they are kept some samples further on, round the end."""
    kind = Kind("late answers", Mechanism.ORDER, "unit")
    while True:
        steps = int(random.integers(1, 6))
        fault = faults.Misplaced(lambda n, steps=steps: np.roll(np.arange(n), steps))  # type: ignore[misc]
        d = draw(world, random, INT8, *SAFE, sizes=SIZES)
        yield from faulty(kind, d, fault, steps, SECOND)


def float_compiled(world: World, random: Random) -> Iterator[Case]:
    kind = Kind("compiled in float", Mechanism.FLOAT, "core", real=True)
    while True:
        d = draw(world, random, *SAFE, sizes=SIZES)
        fault = faults.FloatCompiled(d.model, d.net.parents["onnx"])
        yield from faulty(kind, d, fault, 0, SOC)


def infinity(world: World, random: Random) -> Iterator[Case]:
    kind = Kind("infinity", Mechanism.FAULT, "core")
    while True:
        part = share(random)
        fault = faults.Silent(part, infinite, int(random.integers(1 << 30)))
        yield from faulty(kind, draw(world, random, *SAFE, sizes=SIZES), fault, part, SOC)


RUNS: Runs = (
    (Kind("no XNNPACK", Mechanism.ROUNDING, "kernels", True), LITERT, BUILTIN, (INT8,)),
    (Kind("runtime version", Mechanism.KERNEL, "runtime", True), LITERT, OLD, (INT8,)),
    (Kind("float plan", Mechanism.PLAN, "kernels", True), ORT, FLOAT_QDQ, SAFE),
    (Kind("saturation", Mechanism.SATURATION, "core", True), ORT, HASWELL, ("u8s8.onnx",)),
    (Kind("wrong unit", Mechanism.FAULT, "core", True), LITERT, BAD, (INT8,)),
)


@dataclass(frozen=True, eq=False)
class Inner:
    """Planters of defects that all devices share, of nets whose steps and ranges are known."""

    drawn: Mapping[str, Drawn]

    def _any(self, world: World, random: Random) -> Drawn:
        return self.drawn[world.nets[int(random.integers(len(world.nets)))].name]

    def percentiles(self, world: World, random: Random) -> Iterator[Case]:
        """Ranges are cut at percentiles that are too low. Severity: share of values beyond."""
        kind = Kind("percentile calibration", RANGE_COLLAPSE, EVERYWHERE, True, stated=0.05)
        while True:
            one, beyond = self._any(world, random), share(random, 0.005, 0.4)
            spans = [cut(x, beyond) for x in computed(one)]
            yield twins(kind, self._made(world, random, one, spans), beyond, EVERYWHERE)

    def outlier(self, world: World, random: Random) -> Iterator[Case]:
        """One outlier in calibration made every range too wide. Severity: how many times."""
        kind = Kind("outlier in calibration", RANGE_COLLAPSE, EVERYWHERE, True, stated=64.0)
        while True:
            one, times = self._any(world, random), share(random, 2, 400)
            spans = [(low * times, high * times) for low, high in one.ranges]
            yield twins(kind, self._made(world, random, one, spans), times, EVERYWHERE)

    def drifted(self, world: World, random: Random) -> Iterator[Case]:
        """Inputs drift away from what was calibrated for. Severity: by how much of the range."""
        kind = Kind("drifted inputs", RANGE_COLLAPSE, INPUT, True, stated=0.3)
        while True:
            one, shift = self._any(world, random), float(random.uniform(0.05, 1.0))
            images = (one.net.images + np.float32(shift)).astype(np.float32)
            d = of(world, random, one.net, INT8, one.net.files[INT8], SIZES)
            d = replace(d, x=fed(images[d.at], d.model, d.form))
            yield twins(kind, d, shift, INPUT, images=images)

    def narrow_layer(self, world: World, random: Random) -> Iterator[Case]:
        """One layer's range is cut at a percentile. Severity: share of its values beyond."""
        kind = Kind("narrow layer", CASCADE, "", True, stated=0.05)
        while True:
            one, beyond = self._any(world, random), share(random, 0.005, 0.4)
            able = [i for i, s in enumerate(one.steps[:-2]) if s.kind != MEAN]
            index = int(random.choice(able))
            spans = list(one.ranges)
            spans[index + 1] = cut(computed(one)[index + 1], beyond)
            d = self._made(world, random, one, spans)
            yield twins(kind, d, beyond, str(index))

    def weak_class(self, world: World, random: Random) -> Iterator[Case | Undrawn]:
        """One class's bias is too low, in deviations of its output. Severity: its lost share."""
        kind = Kind("weak class", "slice", "", True, stated=0.2)
        while True:
            one, amount = self._any(world, random), float(random.uniform(0.2, 3.0))
            which = int(random.integers(int(one.net.labels.max()) + 1))
            last, bias = one.steps[-1], one.steps[-1].bias.copy()
            bias[which] -= amount * float(computed(one)[-1][:, which].std())
            steps = (*one.steps[:-1], Step(DENSE, last.weight, bias))
            d = self._made(world, random, one, one.ranges, steps, SIZES[-1:])
            made = twins(kind, d, 0.0, str(which))
            before, after = made.truth.correct, made.answers[1].correct
            assert before is not None
            assert after is not None
            mine = before & (made.labels == which)
            if not mine.any():
                yield Undrawn(kind.name, "the class had nothing to lose")
                continue
            lost = float((mine & ~after).sum() / mine.sum())
            yield replace(made, severity=lost, place=len(steps) - 1)

    def _made(
        self,
        world: World,
        random: Random,
        one: Drawn,
        spans: Sequence[Range],
        steps: Sequence[Step] | None = None,
        sizes: Sequence[int] = SIZES,
    ) -> Draw:
        model = to_tflite(steps or one.steps, one.net.images.shape[1:], spans)
        return of(world, random, one.net, INT8, model, sizes)

    def planters(self) -> list[Planter]:
        return [self.percentiles, self.outlier, self.drifted, self.narrow_layer, self.weak_class]


def computed(one: Drawn) -> list[Array]:
    return activations(one.net.parents["tflite"], one.net.images[:CALIBRATION])


def other_parent(world: World, random: Random) -> Iterator[Case]:
    """Pruned afterwards, of another net's shape, or rounded to a lattice per channel.

    Severity: share of weights pruned.
    """
    kind = Kind("wrong FP32 parent", "wrong parent", "", True, stated=0.1)
    while True:
        d, way = draw(world, random, INT8, *SAFE, sizes=SIZES), int(random.integers(3))
        part = share(random, 0.05, 0.7)

        def change(w: Array, way: int = way, part: float = part) -> Array:
            if way == 0:
                return np.where(np.abs(w) < np.quantile(np.abs(w), part), 0, w)
            if way == 1:
                return random.permutation(w.ravel()).reshape(w.shape)
            steps = np.abs(w).max(axis=tuple(range(1, w.ndim)), keepdims=True) / 127
            rounded: Array = np.rint(w / np.maximum(steps, 1e-9)) * steps
            return rounded

        verdict = ("derived", "unrelated", "not-fp32")[way]
        made = twins(kind, d, part if way == 0 else 1.0, verdict)
        yield replace(made, claimed=("onnx", reweighted(d.net.parents["onnx"], change)))


def blended(world: World, random: Random) -> Iterator[Case]:
    """Nothing is wrong: inputs half one sample, half another, so that decisions are close."""
    kind = Kind("blended inputs", real=True)
    while True:
        d = draw(world, random, INT8, *SAFE, sizes=SIZES)
        images = (d.net.images + d.net.images[::-1]) / np.float32(2)
        one = replace(d, x=fed(images[d.at], d.model, d.form))
        yield twins(kind, one, 0.0, "", images=images)


def repeated(world: World, random: Random) -> Iterator[Case]:
    """Nothing is wrong: few different samples, each several times."""
    kind = Kind("few samples, often", real=True)
    while True:
        d = draw(world, random, INT8, *SAFE, sizes=SIZES)
        at = np.sort(random.choice(d.at[:20], len(d.at)))
        one = replace(d, at=at, x=fed(d.net.images[at], d.model, d.form))
        a, b = one.sound(passes=True), one.sound(SECOND, twin=True, passes=True)
        yield case(kind, d.net, d.file, d.model, a, b, at)


PAIRS: tuple[Planter, ...] = (
    *(lost_weights, stuck_output, bursts, unsteady, low_power, other_classes, other_decoding),
    *(fading, late, float_compiled, lost_delegate, infinity, other_parent),
)


def planters(world: World, nets: Sequence[Drawn]) -> list[Planter]:
    return [*real(world, RUNS), *PAIRS, *Inner({one.net.name: one for one in nets}).planters()]


def quiet(world: World) -> list[Planter]:
    return [*nulls.quiet(world), blended, repeated]
