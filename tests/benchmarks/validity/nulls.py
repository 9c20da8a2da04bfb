"""Pairs in which nothing is wrong, chosen to look as if something might be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tests.benchmarks.validity.case import INT8, Case, Kind, Place, case, fed, seen
from tests.benchmarks.validity.draws import OTHER, SAFE, Draw, Planter, draw, of
from tests.benchmarks.validity.inner import ranges_of, twins
from tests.benchmarks.validity.recalibrate import recalibrated
from tests.benchmarks.validity.world import HASWELL, ORT, Random, World, spec_of

UNSAFE = "u8s8.onnx"


def again(world: World, random: Random) -> Iterator[Case]:
    """The same unit once more, also three times over and in another order."""
    kind = Kind("same unit again", real=True)
    while True:
        d = draw(world, random)
        a, b = d.sound(passes=True), d.sound(twin=True, passes=True)
        yield case(kind, d.net, d.file, d.model, a, b, d.at)


def sibling(world: World, random: Random) -> Iterator[Case]:
    """Another unit of the class."""
    kind = Kind("other unit", real=True)
    while True:
        d = draw(world, random)
        yield case(kind, d.net, d.file, d.model, d.sound(), d.sound(OTHER, twin=True), d.at)


def noisy_labels(world: World, random: Random) -> Iterator[Case]:
    """A tenth of the labels is wrong, for both alike."""
    kind = Kind("label noise", real=True)
    while True:
        d = draw(world, random)
        labels = d.net.labels[d.at].copy()
        hit = random.random(len(labels)) < 0.1
        labels[hit] = (labels[hit] + 1) % (int(d.net.labels.max()) + 1)
        a, b = d.sound(), d.sound(OTHER, twin=True)
        yield case(kind, d.net, d.file, d.model, a, b, d.at, labels=labels)


def other_order(world: World, random: Random) -> Iterator[Case]:
    """One row only has been asked in another order; its answers are the same."""
    kind = Kind("other order of samples", real=True)
    while True:
        d = draw(world, random)
        b = d.sound(OTHER, twin=True, passes=True)
        yield case(kind, d.net, d.file, d.model, d.sound(), b, d.at)


def threads(world: World, random: Random) -> Iterator[Case]:
    kind = Kind("other threads", real=True)
    while True:
        yield _threads(kind, draw(world, random, INT8, *SAFE, UNSAFE))


def near_ties(world: World, random: Random) -> Iterator[Case]:
    """The same, on the samples on which the model is least sure."""
    kind = Kind("near ties, other threads", real=True)
    while True:
        d = draw(world, random, INT8, *SAFE, UNSAFE, sizes=(1000,))
        top = np.sort(d.sound().output.values.astype(np.float64), axis=1)
        least = np.sort(np.argsort(top[:, -1] - top[:, -2])[: int(random.choice([50, 100]))])
        at = d.at[least]
        x = fed(d.net.images[at], d.model, d.form)
        yield _threads(kind, replace(d, at=at, x=x))


def _threads(kind: Kind, d: Draw) -> Case:
    two = replace(spec_of(d.file), threads=2)
    return case(kind, d.net, d.file, d.model, d.sound(), d.sound(spec=two, twin=True), d.at)


def calibrated_anew(world: World, random: Random) -> Iterator[Case]:
    """Quantised again with ranges out of other, good inputs."""
    kind = Kind("calibrated anew", real=True)
    while True:
        net = world.nets[int(random.integers(len(world.nets)))]
        among = random.choice(len(net.labels), min(100, len(net.labels) // 2), replace=False)
        model = recalibrated(net.files[INT8], ranges_of(net, 1.0, among))
        yield twins(kind, of(world, random, net, INT8, model), 0.0, "")


def other_format(world: World, random: Random) -> Iterator[Case]:
    """The parent is the true one, in the other format."""
    kind = Kind("parent in another format", real=True)
    while True:
        d = draw(world, random)
        form = "onnx" if d.form == "tflite" else "tflite"
        yield replace(twins(kind, d, 0.0, ""), claimed=(form, d.net.parents[form]))


def safe_on_haswell(world: World, random: Random) -> Iterator[Case]:
    """A CPU that saturates, and files that cannot."""
    kind = Kind("safe file without VNNI", real=True)
    while True:
        d = draw(world, random, *SAFE)
        whole, board = fed(d.net.images, d.model, d.form), world.remote[HASWELL]
        a = seen(world.sound(ORT), world.sound(ORT).answer(d.model, whole), d.model, d.form)
        b = seen(board, board.answer(d.model, whole), d.model, d.form, Place(HASWELL, HASWELL))
        yield case(kind, d.net, d.file, d.model, a.of(d.at), b.of(d.at), d.at)


MADE: tuple[Planter, ...] = (
    *(again, sibling, noisy_labels, other_order, threads, near_ties),
    *(calibrated_anew, other_format),
)


def quiet(world: World) -> list[Planter]:
    return [*MADE, *([safe_on_haswell] if HASWELL in world.remote else [])]
