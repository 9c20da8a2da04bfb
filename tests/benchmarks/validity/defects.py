"""Planted defects, each of a known mechanism, factor and severity.

A planter draws cases until it has ``count``. A draw in which the defect changes no byte is no
defect (a stuck bit of a weight that is never used, say) and is drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import onnx

from orchestrator.attribution.evidence import Mechanism
from orchestrator.variance.lattice import Array
from tests.benchmarks.validity.case import Case, Maker, Rows, Seen, seen
from tests.benchmarks.validity.world import (
    BAD,
    FLOAT_QDQ,
    HASWELL,
    LITERT,
    NETS,
    OLD,
    ORT,
    REFERENCE,
    Way,
    World,
)

Random = np.random.Generator
Planter = Callable[[World, Random], Iterator[Case]]
INT8, SAFE = "int8.tflite", ("u8u8.onnx", "u8s8_rr.onnx")
SIZES = (50, 100, 200, 500, 1000)
MOST_DRAWS = 400


def draw(planter: Planter, world: World, random: Random, count: int) -> list[Case]:
    found: list[Case] = []
    for number, case in enumerate(planter(world, random)):
        if number >= MOST_DRAWS * count:
            raise AssertionError("the planter does not plant")
        if not case.evidence.signature.identical or case.kind == "wrong input":
            found.append(case)
        if len(found) == count:
            return found
    return found


def rows(world: World, random: Random) -> Rows:
    n = min(int(random.choice(SIZES)), len(world.labels))
    return np.sort(random.choice(len(world.labels), n, replace=False)).astype(np.int64)


def pair_of(
    kind: str, mechanism: Mechanism, factor: str, other: Way, usual: Way, *files: str
) -> Planter:
    """Two ways to run one file that really differ. Severity: share of samples that do."""

    def plant(world: World, random: Random) -> Iterator[Case]:
        maker = Maker(kind, mechanism, factor, real=True)
        while True:
            net, file = str(random.choice(list(NETS))), str(random.choice(files))
            at = rows(world, random)
            a, b = (seen(world.answer(net, file, way), way, file).of(at) for way in (usual, other))
            case = maker.add(a, b, world.labels[at], 0.0, world.saturable(net, file))
            found = case.evidence.signature.pair
            yield replace(case, severity=1 - found.bit_exact / found.n)

    return plant


def usual(world: World, random: Random, *files: str) -> tuple[str, str, Seen, Rows]:
    """A file of a net and its right answer to some of the samples."""
    net, file = str(random.choice(list(NETS))), str(random.choice(files or (INT8, *SAFE)))
    way, at = LITERT if file == INT8 else ORT, rows(world, random)
    return net, file, seen(world.answer(net, file, way), way, file).of(at), at


def stuck_bit(world: World, random: Random) -> Iterator[Case]:
    """One bit of one weight is the other way round in one unit's memory. Severity: the bit."""
    maker = Maker("stuck bit", Mechanism.FAULT, "unit", real=False)
    while True:
        net, file, a, at = usual(world, random, *SAFE)
        bit = int(random.integers(0, 8))
        model = onnx.load(str(world.file(net, file)))
        codes = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
        weights = [t for t in model.graph.initializer if t.data_type in codes and len(t.dims) > 1]
        tensor = weights[int(random.integers(len(weights)))]
        data = bytearray(tensor.raw_data)
        data[int(random.integers(len(data)))] ^= 1 << bit
        tensor.raw_data = bytes(data)
        spoilt = world.run(net, file, ORT, model.SerializeToString())
        b = seen(spoilt, ORT, file).of(at).other(unit="host-2")
        yield maker.add(a, b, world.labels[at], bit)


def silent_flips(world: World, random: Random) -> Iterator[Case]:
    """A unit that now and then puts out a wrong code. Severity: share of samples."""
    maker = Maker("wrong codes", Mechanism.FAULT, "unit", real=False)
    while True:
        _, _, a, at = usual(world, random, INT8)
        share = float(random.choice([0.01, 0.02, 0.05, 0.1, 0.3]))
        values = a.output.values.copy()
        hit = random.choice(len(values), max(1, round(share * len(values))), replace=False)
        column = random.integers(0, values.shape[1], len(hit))
        values[hit, column] ^= np.int8(1 << int(random.integers(0, 7)))
        b = a.with_values(values).other(unit="host-2")
        yield maker.add(a, b, world.labels[at], share)


def intermittent(world: World, random: Random) -> Iterator[Case]:
    """As above, and the unit's repeats show it."""
    for case in silent_flips(world, random):
        found = case.evidence
        told = replace(
            found.b, repeated=99 * found.signature.pair.n, mismatches=int(random.integers(1, 50))
        )
        yield replace(case, kind="intermittent fault", evidence=replace(found, b=told))


def unsteady(world: World, random: Random) -> Iterator[Case]:
    """An accelerator that differs from itself between passes. Severity: share of samples."""
    for case in silent_flips(world, random):
        found = case.evidence
        told = replace(
            found.b, repeated=99, mismatches=int(random.integers(1, 50)), accelerated=True
        )
        yield replace(
            case,
            kind="unsteady accelerator",
            mechanism=Mechanism.NONDETERMINISM,
            evidence=replace(found, b=told),
        )


def heat(world: World, random: Random) -> Iterator[Case]:
    """Wrong codes on a hot device only. Severity: share of samples."""
    maker = Maker("fault when hot", Mechanism.FAULT, "condition", real=False)
    while True:
        _, _, a, at = usual(world, random, INT8)
        values = a.output.values.copy()
        share = float(random.choice([0.01, 0.05, 0.2]))
        hit = random.choice(len(values), max(1, round(share * len(values))), replace=False)
        values[hit, 0] ^= np.int8(8)
        b = a.with_values(values).other(condition="soak:75C/60s")
        yield maker.add(a, b, world.labels[at], share)


def swapped_labels(world: World, random: Random) -> Iterator[Case]:
    """One device's label file has classes swapped. Severity: how many."""
    maker = Maker("swapped labels", Mechanism.LAYOUT, "unit", real=False)
    while True:
        _, _, a, at = usual(world, random)
        classes = a.output.values.shape[1]
        count = int(random.choice([2, 3, 5, classes]))
        moved = random.choice(classes, count, replace=False)
        order = np.arange(classes)
        order[moved] = np.roll(moved, 1)
        b = a.with_values(a.output.values[:, order]).other(unit="host-2")
        yield maker.add(a, b, world.labels[at], count)


def wrong_input(world: World, random: Random) -> Iterator[Case]:
    """One device decodes otherwise: turned, mirrored, inverted or darker. Severity: which."""
    maker = Maker("wrong input", Mechanism.DECODE, "unit", real=True)
    ways: list[Callable[[Array], Array]] = [
        lambda x: x * np.float32(0.9),
        lambda x: x[:, :, ::-1],
        lambda x: x.transpose(0, 2, 1, 3),
        lambda x: np.float32(1) - x,
    ]
    while True:
        net, file, a, at = usual(world, random)
        severity = int(random.integers(len(ways)))
        way = LITERT if file == INT8 else ORT
        kept = world.images[net]
        world.images[net] = np.ascontiguousarray(ways[severity](kept))
        try:
            fed = world.fed(net, file)
        finally:
            world.images[net] = kept
        spoilt = world.run(net, file, way, world.file(net, file).read_bytes(), fed)
        b = seen(spoilt, way, file).of(at).other(unit="host-2")
        yield maker.add(a, b, world.labels[at], severity)


def carry_over(world: World, random: Random) -> Iterator[Case]:
    """A state that is not reset leaks a part of the sample before. Severity: the part."""
    maker = Maker("state carry-over", Mechanism.STATE, "kernels", real=False)
    while True:
        _, _, a, at = usual(world, random, INT8)
        part = float(random.choice([0.05, 0.1, 0.3]))

        def leaked(values: Array, part: float = part) -> Array:
            before = np.roll(values, 1, axis=0).astype(np.float64)
            before[0] = 0
            mixed = np.rint(values.astype(np.float64) + part * before)
            return np.clip(mixed, -128, 127).astype(np.int8)

        order = random.permutation(len(at))
        once, again = leaked(a.output.values), leaked(a.output.values[order])
        carried = int((once[order] != again).any(axis=1).sum())
        b = a.with_values(once).other(kernels="reset off").told(carried=(carried, len(at)))
        yield maker.add(a, b, world.labels[at], part)


def shuffled(world: World, random: Random) -> Iterator[Case]:
    """Answers come back in another order than they were asked. Severity: share of samples moved."""
    maker = Maker("shuffled answers", Mechanism.ORDER, "unit", real=False)
    while True:
        _, _, a, at = usual(world, random)
        share = float(random.choice([0.05, 0.2, 1.0]))
        moved = random.choice(len(at), max(2, round(share * len(at))), replace=False)
        order = np.arange(len(at))
        order[moved] = np.roll(moved, 1)
        b = a.with_values(a.output.values[order]).other(unit="host-2")
        yield maker.add(a, b, world.labels[at], share)


def float_head(world: World, random: Random) -> Iterator[Case]:
    """One side silently computes the net in float. Severity: 0."""
    maker = Maker("computed in float", Mechanism.FLOAT, "core", real=True)
    while True:
        net, _, a, at = usual(world, random, *SAFE)
        parent = world.answer(net, "fp32.onnx", ORT)
        b = a.with_values(parent.output.values[at]).other(
            core="npu", unit="npu", device_class="npu"
        )
        yield maker.add(a, b, world.labels[at], 0)


def lost_delegate(world: World, random: Random) -> Iterator[Case]:
    """XNNPACK is lost and the runtime says so; other kernels answer. Severity: 0."""
    maker = Maker("lost delegate", Mechanism.FLOAT, "kernels", real=False)
    while True:
        net, file, a, at = usual(world, random, INT8)
        line = "XNNPACK not applied to 13 operators"
        b = seen(world.answer(net, file, REFERENCE), LITERT, file).of(at)
        b = b.other(kernels=f"fallback: {line}").told(fallbacks=(line,))
        yield maker.add(a, b, world.labels[at], 0)


def not_a_number(world: World, random: Random) -> Iterator[Case]:
    """NaN on one kind of core. Severity: share of samples."""
    maker = Maker("NaN", Mechanism.FAULT, "core", real=False)
    while True:
        _, _, a, at = usual(world, random, *SAFE)
        share = float(random.choice([0.01, 0.1]))
        values = a.output.values.copy()
        hit = random.choice(len(values), max(1, round(share * len(values))), replace=False)
        values[hit] = np.nan
        b = a.with_values(values).other(core="npu", unit="npu", device_class="npu")
        yield maker.add(a, b, world.labels[at], share)


REAL: dict[str, tuple[Way, Planter]] = {
    name: (other, pair_of(name, mechanism, factor, other, plain, *files))
    for name, mechanism, factor, other, plain, files in (
        ("kernel set", Mechanism.ROUNDING, "kernels", REFERENCE, LITERT, (INT8,)),
        ("runtime version", Mechanism.KERNEL, "runtime", OLD, LITERT, (INT8,)),
        ("float plan", Mechanism.PLAN, "kernels", FLOAT_QDQ, ORT, SAFE),
        ("saturation", Mechanism.SATURATION, "core", HASWELL, ORT, ("u8s8.onnx",)),
        ("wrong unit", Mechanism.FAULT, "core", BAD, LITERT, (INT8,)),
    )
}
MADE: tuple[Planter, ...] = (
    *(stuck_bit, silent_flips, intermittent, unsteady, heat, swapped_labels, wrong_input),
    *(carry_over, shuffled, float_head, lost_delegate, not_a_number),
)
