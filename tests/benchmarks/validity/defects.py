"""Planted defects between two rows, each of a known mechanism, factor and severity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from device_worker.wire import RuntimeSpec
from orchestrator.diagnosis.evidence import Mechanism
from orchestrator.variance.lattice import Array
from tests.benchmarks.validity import faults
from tests.benchmarks.validity.case import INT8, Case, Kind, Place, Undrawn, case, fed, seen
from tests.benchmarks.validity.draws import (
    NPU,
    OTHER,
    SAFE,
    Draw,
    Planter,
    accelerated,
    draw,
    having,
    rotated,
)
from tests.benchmarks.validity.unit import Fault
from tests.benchmarks.validity.weights import constants
from tests.benchmarks.validity.world import BAD, HASWELL, LITERT, OLD, ORT, Random, World, spec_of

SHARES = (0.01, 0.02, 0.05, 0.1, 0.3)
REFERENCE = RuntimeSpec("litert", kernels="reference")
FLOAT_QDQ = RuntimeSpec("onnxruntime", session={"session.disable_quant_qdq": "1"})


def against(kind: Kind, usual: RuntimeSpec, other: RuntimeSpec | str, *files: str) -> Planter:
    """Two ways to run one file that really differ: ``other`` is a spec, or the name of a remote.

    Severity: share of samples that do. Saturation needs two CPUs of which one adds pairs in int16.
    """

    def plant(world: World, random: Random) -> Iterator[Case | Undrawn]:
        if not having(world, *files):
            yield Undrawn(kind.name, f"no net here has {' or '.join(files)}")
            return
        while True:
            d = draw(world, random, *files)
            whole = fed(d.net.images, d.model, d.form)
            unit = world.remote[other] if isinstance(other, str) else world.sound(other)
            place = Place(other, other) if other in (HASWELL, BAD) else None
            a, b = (
                seen(u, u.answer(d.model, whole), d.model, d.form, p).of(d.at)
                for u, p in ((world.sound(usual), None), (unit, place))
            )
            pairs = a.shown.pair_sums
            if kind.mechanism == Mechanism.SATURATION and b.shown.pair_sums == pairs:
                both = "both CPUs add" if pairs else "neither CPU is known to add"
                yield Undrawn(kind.name, f"{both} byte products in pairs in int16")
                return
            made = case(kind, d.net, d.file, d.model, a, b, d.at)
            pair = made.evidence.signature.pair
            yield replace(made, severity=1 - pair.bit_exact / pair.n)

    return plant


def faulty(
    kind: Kind,
    d: Draw,
    fault: Fault,
    severity: float,
    place: Place = OTHER,
    *,
    usual: Place | None = None,
    passes: bool = False,
    operator: int | None = None,
) -> Iterator[Case]:
    """One case: a sound row against one with the fault."""
    unit = d.faulty(fault)
    a, b = d.sound(usual, passes=passes), d.row(unit, place, passes=passes)
    yield case(kind, d.net, d.file, d.model, a, b, d.at, severity=severity, place=operator)
    unit.forget()


def stuck_bit(world: World, random: Random) -> Iterator[Case]:
    """One bit of one weight is the other way round in one unit's memory. Severity: the bit."""
    kind = Kind("stuck bit", Mechanism.FAULT, "unit")
    while True:
        d = draw(world, random, INT8, *SAFE)
        known = constants(d.model, d.form)
        one = known[int(random.integers(len(known)))]
        bit, where = int(random.integers(8)), int(random.integers(len(one.data)))
        bad = bytearray(one.data)
        bad[where] ^= 1 << bit
        fault = faults.Memory(one.data, bytes(bad))
        yield from faulty(kind, d, fault, bit, operator=one.operator)


def silent(world: World, random: Random) -> Iterator[Case]:
    """A unit that gets some inputs wrong, always the same. Severity: share of samples."""
    kind = Kind("wrong codes", Mechanism.FAULT, "unit")
    while True:
        share = float(random.choice(SHARES))
        fault = faults.Silent(share, faults.bit_flipped, int(random.integers(1 << 30)))
        yield from faulty(kind, draw(world, random, INT8), fault, share)


def intermittent(world: World, random: Random) -> Iterator[Case]:
    """A unit that gets some inferences wrong, and is asked three times."""
    kind = Kind("intermittent fault", Mechanism.FAULT, "unit")
    while True:
        share = float(random.choice(SHARES))
        fault = faults.Flaky(share, faults.bit_flipped, random)
        yield from faulty(kind, draw(world, random, INT8), fault, share, passes=True)


def unsteady(world: World, random: Random) -> Iterator[Case]:
    """The same on an accelerator."""
    kind = Kind("unsteady accelerator", Mechanism.NONDETERMINISM, "unit")
    while True:
        share = float(random.choice(SHARES))
        fault = faults.Flaky(share, faults.bit_flipped, random)
        places = accelerated(OTHER), accelerated(Place())
        d = draw(world, random, INT8)
        yield from faulty(kind, d, fault, share, places[0], usual=places[1], passes=True)


def hot(world: World, random: Random) -> Iterator[Case]:
    """The unit gets some inputs wrong when it is hot."""
    kind = Kind("fault when hot", Mechanism.FAULT, "condition")
    while True:
        share = float(random.choice([0.01, 0.05, 0.2]))
        fault = faults.Silent(share, faults.bit_flipped, int(random.integers(1 << 30)))
        place = Place(condition="soak:75C/60s")
        yield from faulty(kind, draw(world, random, INT8), fault, share, place)


def swapped_labels(world: World, random: Random) -> Iterator[Case]:
    """One unit's label file has classes swapped. Severity: how many."""
    kind = Kind("swapped labels", Mechanism.LAYOUT, "unit")
    while True:
        d = draw(world, random)
        classes = int(d.net.labels.max()) + 1
        count = int(random.choice([2, 3, 5, classes]))
        order = rotated(classes, random.choice(classes, count, replace=False))
        yield from faulty(kind, d, faults.Relabelled(order.tolist()), count)


def wrong_input(world: World, random: Random) -> Iterator[Case]:
    """One unit decodes otherwise: darker, mirrored, turned or inverted. Severity: which."""
    kind = Kind("wrong input", Mechanism.DECODE, "unit", real=True)
    ways = (
        lambda x: x * np.float32(0.9),
        lambda x: x[:, :, ::-1],
        lambda x: x.transpose(0, 2, 1, 3),
        lambda x: np.float32(1) - x,
    )
    while True:
        d, which = draw(world, random), int(random.integers(len(ways)))
        images: Array = np.ascontiguousarray(ways[which](d.net.images[d.at]))
        b = d.row(world.sound(spec_of(d.file), True), OTHER, x=fed(images, d.model, d.form))
        yield case(kind, d.net, d.file, d.model, d.sound(), b, d.at, severity=which)


def carry_over(world: World, random: Random) -> Iterator[Case]:
    """A state that is not reset leaks a part of the inference before. Severity: the part."""
    kind = Kind("state carry-over", Mechanism.STATE, "unit")
    while True:
        part = float(random.choice([0.05, 0.1, 0.3]))
        d = draw(world, random, INT8)
        yield from faulty(kind, d, faults.Leak(part), part, passes=True)


def shuffled(world: World, random: Random) -> Iterator[Case]:
    """Answers are kept under other samples. Severity: share of samples moved."""
    kind = Kind("shuffled answers", Mechanism.ORDER, "unit")
    while True:
        share, seed = float(random.choice([0.05, 0.2, 1.0])), int(random.integers(1 << 30))

        def order(n: int, share: float = share, seed: int = seed) -> Array:
            count = max(2, round(share * n))
            return rotated(n, np.random.default_rng(seed).choice(n, count, replace=False))

        yield from faulty(kind, draw(world, random), faults.Misplaced(order), share)


def float_head(world: World, random: Random) -> Iterator[Case]:
    """An accelerator computes the net in float and does not say so. Severity: 0."""
    kind = Kind("computed in float", Mechanism.FLOAT, "core", real=True)
    while True:
        d = draw(world, random, *SAFE)
        fault = faults.FloatCompiled(d.model, d.net.parents["onnx"])
        yield from faulty(kind, d, fault, 0, NPU)


def lost_delegate(world: World, random: Random) -> Iterator[Case]:
    """XNNPACK is lost and other kernels answer; the worker notices by itself. Severity: 0."""
    kind = Kind("lost delegate", Mechanism.FLOAT, "kernels", real=True)
    while True:
        yield from faulty(kind, draw(world, random, INT8), faults.LostDelegate(), 0, Place())


def not_a_number(world: World, random: Random) -> Iterator[Case]:
    """NaN on one kind of core. Severity: share of samples."""
    kind = Kind("NaN", Mechanism.FAULT, "core")
    while True:
        share = float(random.choice([0.02, 0.1]))
        fault = faults.Silent(share, faults.not_a_number, int(random.integers(1 << 30)))
        yield from faulty(kind, draw(world, random, *SAFE), fault, share, NPU)


Runs = Sequence[tuple[Kind, RuntimeSpec, RuntimeSpec | str, tuple[str, ...]]]
RUNS: Runs = (
    (Kind("kernel set", Mechanism.ROUNDING, "kernels", True), LITERT, REFERENCE, (INT8,)),
    (Kind("runtime version", Mechanism.KERNEL, "runtime", True), LITERT, OLD, (INT8,)),
    (Kind("float plan", Mechanism.PLAN, "kernels", True), ORT, FLOAT_QDQ, SAFE),
    (Kind("saturation", Mechanism.SATURATION, "core", True), ORT, HASWELL, ("u8s8.onnx",)),
    (Kind("wrong unit", Mechanism.FAULT, "core", True), LITERT, BAD, (INT8,)),
)


def real(world: World, runs: Runs = RUNS) -> list[Planter]:
    """Of the ways to run a file that this machine offers."""
    return [
        against(kind, usual, other, *files)
        for kind, usual, other, files in runs
        if not isinstance(other, str) or other in world.remote
    ]


PLANTERS: tuple[Planter, ...] = (
    *(stuck_bit, silent, intermittent, unsteady, hot, swapped_labels, wrong_input),
    *(carry_over, shuffled, float_head, lost_delegate, not_a_number),
)
