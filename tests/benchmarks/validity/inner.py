"""Planted defects that every device shares: ranges, inputs, parents, one class.

Two devices agree on each of these, so comparing them shows nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from orchestrator.diagnosis.taps import CASCADE, RANGE_COLLAPSE
from orchestrator.variance.lattice import Array
from tests.benchmarks.validity.case import INT8, Case, Kind, Net, Undrawn, case, fed
from tests.benchmarks.validity.draws import SAFE, SIZES, Draw, Planter, draw, of
from tests.benchmarks.validity.recalibrate import (
    Range,
    activations,
    bias_moved,
    ranges,
    recalibrated,
)
from tests.benchmarks.validity.weights import reweighted
from tests.benchmarks.validity.world import Random, World

CALIBRATION = 100
"""Samples that ranges are taken from."""
INPUT = "None"
"""How the layers call the input of the model, which no operator makes."""
EVERYWHERE = "all ranges"
"""Where it begins is then a question of degree, and every answer is right."""


def ranges_of(net: Net, gain: float, among: Array | None = None) -> list[Range]:
    """Calibration ranges from inputs that are ``gain`` times as bright as they should be."""
    images = net.images[:CALIBRATION] if among is None else net.images[among]
    return ranges(activations(net.parents["tflite"], images * np.float32(gain)))


def twins(kind: Kind, d: Draw, severity: float, where: str, *, images: Array | None = None) -> Case:
    """Two sound devices that run the same file."""
    a, b = d.sound(), d.sound(twin=True)
    return case(
        kind,
        d.net,
        d.file,
        d.model,
        a,
        b,
        d.at,
        severity=severity,
        pair=False,
        where=where,
        place=int(where) if where.isdigit() and kind.mechanism == CASCADE else None,
        images=images,
    )


def calibrated_on(kind: Kind, gains: Callable[[Random], float]) -> Planter:
    """The file is quantised again with ranges out of wrongly scaled inputs.

    Severity: how much too narrow (1 - gain), or how many times too wide.
    """

    def plant(world: World, random: Random) -> Iterator[Case]:
        while True:
            net, gain = world.nets[int(random.integers(len(world.nets)))], gains(random)
            model = recalibrated(net.files[INT8], ranges_of(net, gain))
            d = of(world, random, net, INT8, model)
            yield twins(kind, d, 1 - gain if gain < 1 else gain, EVERYWHERE)

    return plant


def brighter_inputs(world: World, random: Random) -> Iterator[Case]:
    """The file is right, its inputs leave the range they were calibrated for. Severity: gain."""
    kind = Kind("inputs out of range", RANGE_COLLAPSE, INPUT, True, stated=1.5)
    while True:
        d, gain = draw(world, random, INT8), float(random.choice([1.1, 1.25, 1.5, 2, 4]))
        images = d.net.images * np.float32(gain)
        bright = replace(d, x=fed(images[d.at], d.model, d.form))
        yield twins(kind, bright, gain, INPUT, images=images)


def clipped_layer(world: World, random: Random) -> Iterator[Case]:
    """One layer's range is too narrow, and layers behind it pay. Severity: 1 - part of the range.

    A layer that hands codes on has no range of its own, and one at the end has nothing behind it.
    """
    kind = Kind("saturation cascade", CASCADE, "", True, stated=0.5)
    while True:
        net = world.nets[int(random.integers(len(world.nets)))]
        right = ranges_of(net, 1.0)
        able = clippable(net)
        index, part = int(random.choice(able)), float(random.choice([0.2, 0.3, 0.5, 0.7, 0.9]))
        low, high = right[index + 1]
        new: list[Range | None] = [None] * len(right)
        new[index + 1] = low * part, high * part
        d = of(world, random, net, INT8, recalibrated(net.files[INT8], new))
        yield twins(kind, d, 1 - part, str(index))


def clippable(net: Net) -> list[int]:
    """Operators with a lattice of their own, and at least two more behind them."""
    return [i for i, kind in enumerate(kinds(net.files[INT8])[:-2]) if kind in OWN]


OWN = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@functools.lru_cache(maxsize=64)
def kinds(model: bytes) -> list[str]:
    from orchestrator.models import cut_tflite

    return [op.kind for op in cut_tflite.read(model).operators]


def small_cuts(world: World, random: Random) -> Iterator[Case]:
    """Every layer loses a little, less than anybody would mind. Severity: decisions lost by it."""
    kind = Kind("small cuts add up", RANGE_COLLAPSE, EVERYWHERE, True, stated=0.05)
    while True:
        net = world.nets[int(random.integers(len(world.nets)))]
        beyond = float(random.choice([0.001, 0.003, 0.006, 0.009]))
        tensors = activations(net.parents["tflite"], net.images[:CALIBRATION])
        model = recalibrated(net.files[INT8], [cut(x, beyond) for x in tensors])
        made = twins(kind, of(world, random, net, INT8, model, SIZES[-1:]), 0.0, EVERYWHERE)
        before, after = made.truth.correct, made.answers[1].correct
        assert before is not None
        assert after is not None
        yield replace(made, severity=float((before & ~after).sum() / before.sum()))


def cut(values: Array, beyond: float) -> Range:
    """The range that leaves this share of the values out, at the end or ends that are not zero."""
    low, high = float(values.min()), float(values.max())
    if low >= 0:
        return 0.0, float(np.quantile(values, 1 - beyond))
    ends = np.quantile(values, [beyond / 2, 1 - beyond / 2])
    return min(0.0, float(ends[0])), max(0.0, float(ends[1]) if high > 0 else 0.0)


def one_class(world: World, random: Random) -> Iterator[Case | Undrawn]:
    """One class's bias is off: the whole hides what the class loses. Severity: its lost share."""
    kind = Kind("one class loses", "slice", "", True, stated=0.15)
    while True:
        net = world.nets[int(random.integers(len(world.nets)))]
        which = int(random.integers(int(net.labels.max()) + 1))
        amount = -float(random.choice([2.0, 4.0, 6.0, 8.0, 12.0]))
        model = bias_moved(net.files[INT8], which, amount)
        d = of(world, random, net, INT8, model, SIZES[-1:])
        made = twins(kind, d, 0.0, str(which))
        before, after = made.truth.correct, made.answers[1].correct
        assert before is not None
        assert after is not None
        mine = before & (made.labels == which)
        if not mine.any():
            yield Undrawn(kind.name, "the class had nothing to lose")
            continue
        lost = float((mine & ~after).sum() / mine.sum())
        yield replace(made, severity=lost, place=len(kinds(model)) - 1)


def wrong_parent(world: World, random: Random) -> Iterator[Case]:
    """The FP32 file beside it is not what it was made from. Severity: steps that weights are off.

    Fine-tuned afterwards, trained anew, or dequantised.
    """
    kind = Kind("wrong FP32 parent", "wrong parent", "", True, stated=0.1)
    while True:
        d, way = draw(world, random, INT8, *SAFE), int(random.integers(3))
        if way == 0:
            severity, verdict = float(random.choice([0.02, 0.1, 0.5, 1, 3])), "derived"
        else:
            severity, verdict = 100.0, ("unrelated", "not-fp32")[way - 1]

        def change(w: Array, way: int = way, steps: float = severity) -> Array:
            step = float(np.abs(w).max()) / 127
            if way == 0:
                return w + random.normal(0, steps * step, w.shape)
            if way == 1:
                return random.normal(0, float(w.std()), w.shape)
            return np.rint(w / step) * step

        parent = reweighted(d.net.parents["onnx"], change)
        made = twins(kind, d, severity, verdict)
        yield replace(made, claimed=("onnx", parent))


PLANTERS: tuple[Planter, ...] = (
    calibrated_on(
        Kind("narrow calibration", RANGE_COLLAPSE, EVERYWHERE, True, stated=0.3),
        lambda random: float(random.choice([0.95, 0.9, 0.7, 0.5, 0.3, 0.1])),
    ),
    calibrated_on(
        Kind("wide calibration", RANGE_COLLAPSE, EVERYWHERE, True, stated=64.0),
        lambda random: float(random.choice([4, 16, 64, 128, 256])),
    ),
    *(brighter_inputs, clipped_layer, small_cuts, one_class, wrong_parent),
)
