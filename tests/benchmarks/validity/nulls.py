"""Pairs in which nothing is wrong, chosen to look as if something might be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.benchmarks.validity.case import Case, Maker, seen
from tests.benchmarks.validity.defects import INT8, SAFE, Planter, Random, rows, usual
from tests.benchmarks.validity.world import HASWELL, LITERT, LITERT2, NETS, ORT, ORT2, Way, World


def again(world: World, random: Random) -> Iterator[Case]:
    """The same unit is asked once more."""
    maker = Maker("same unit again", None, "", real=True)
    while True:
        net, file, a, at = usual(world, random)
        way = LITERT if file == INT8 else ORT
        fresh = world.run(net, file, way, world.file(net, file).read_bytes())
        yield maker.add(a, seen(fresh, way, file).of(at), world.labels[at], 0)


def sibling(world: World, random: Random) -> Iterator[Case]:
    """Another unit of the class."""
    maker = Maker("other unit", None, "unit", real=False)
    while True:
        _, _, a, at = usual(world, random)
        yield maker.add(a, a.other(unit="host-2"), world.labels[at], 0)


def noisy_labels(world: World, random: Random) -> Iterator[Case]:
    """A tenth of the labels is wrong, for both alike."""
    maker = Maker("label noise", None, "unit", real=False)
    while True:
        _, _, a, at = usual(world, random)
        labels = world.labels[at].copy()
        hit = random.random(len(labels)) < 0.1
        labels[hit] = (labels[hit] + 1) % 10
        yield maker.add(a, a.other(unit="host-2"), labels, 0)


def shuffled_alike(world: World, random: Random) -> Iterator[Case]:
    """Both are asked in another order, and keep samples and answers together."""
    maker = Maker("other order of samples", None, "", real=True)
    while True:
        net, file, a, at = usual(world, random)
        way = LITERT if file == INT8 else ORT
        order = random.permutation(len(world.labels))
        fed = world.fed(net, file)[order]
        told = seen(world.run(net, file, way, world.file(net, file).read_bytes(), fed), way, file)
        back = told.with_values(told.output.values[np.argsort(order)]).of(at)
        yield maker.add(a, back.told(inputs=a.side.inputs), world.labels[at], 0)


def near_ties(world: World, random: Random) -> Iterator[Case]:
    """Only the samples on which the model is least sure, on one thread and on two."""
    maker = Maker("near ties, other threads", None, "threads", real=True)
    while True:
        net, file, way, other = _threads(random)
        a, b = (seen(world.answer(net, file, w), w, file) for w in (way, other))
        top = np.sort(a.output.values.astype(np.float64), axis=1)
        at = np.argsort(top[:, -1] - top[:, -2])[: int(random.choice([50, 100]))]
        yield maker.add(a.of(at), b.of(at), world.labels[at], 0)


def threads(world: World, random: Random) -> Iterator[Case]:
    maker = Maker("other threads", None, "threads", real=True)
    while True:
        net, file, way, other = _threads(random)
        at = rows(world, random)
        a, b = (seen(world.answer(net, file, w), w, file).of(at) for w in (way, other))
        yield maker.add(a, b, world.labels[at], 0)


def safe_on_haswell(world: World, random: Random) -> Iterator[Case]:
    """A CPU that saturates, and files that cannot."""
    maker = Maker("safe file without VNNI", None, "core", real=True)
    while True:
        net, file, at = (
            str(random.choice(list(NETS))),
            str(random.choice(SAFE)),
            rows(world, random),
        )
        a, b = (seen(world.answer(net, file, w), w, file).of(at) for w in (ORT, HASWELL))
        yield maker.add(a, b, world.labels[at], 0, world.saturable(net, file))


def _threads(random: Random) -> tuple[str, str, Way, Way]:
    net, file = str(random.choice(list(NETS))), str(random.choice([INT8, *SAFE, "u8s8.onnx"]))
    return (net, file, LITERT, LITERT2) if file == INT8 else (net, file, ORT, ORT2)


MADE: tuple[Planter, ...] = (*(again, sibling, noisy_labels, shuffled_alike, near_ties, threads),)
