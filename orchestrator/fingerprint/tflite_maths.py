"""TFLite probes of operators without weights: sums, products, averages, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from orchestrator.fingerprint import float_probes, golden
from orchestrator.fingerprint.constants import limits, seed_of
from orchestrator.fingerprint.golden import Scales
from orchestrator.fingerprint.probe import Expected, Feed, Probe
from orchestrator.models.write_tflite import Operator, Tensor, constant, tflite_file

PAIRS = {
    "odd": (0.0371, 0.0523, 0.0617),
    "wide": (0.0371, 0.0523, 0.0031),
    "ties2": (0.5, 0.5, 1.0),
    "ties4": (0.25, 0.5, 1.0),
}
PRODUCTS = {"odd": (0.0371, 0.0523, 0.617), "ties": (0.5, 0.5, 16.0)}
"""Steps of both operands and of the output."""
ROWS = (32, 256)


def probes() -> Iterator[Probe]:
    for dtype in ("int8", "uint8"):
        version = 2 if dtype == "int8" else 1
        zero = 0 if dtype == "int8" else 128
        for name, steps in PAIRS.items():
            yield _binary(
                "ADD", schema.AddOptionsT(), dtype, name, steps, version, golden.added_fixed
            )
        for name, steps in PRODUCTS.items():
            yield _binary("MUL", schema.MulOptionsT(), dtype, name, steps, version, _multiplied)
        for side in (2, 8):
            yield _pool(dtype, zero, side, version)
        yield _mean(dtype, zero, version)
        yield _requantise(dtype, zero, version)
        yield _quantise(dtype, zero)
        yield from _tables(dtype, zero, version)
        for scale in (0.08, 0.17, 0.31):
            yield _softmax(dtype, zero, scale, version)


def _binary(
    kind: str,
    options: Any,
    dtype: str,
    what: str,
    steps: tuple[float, float, float],
    version: int,
    answer: Callable[..., dict[str, golden.Ints]],
) -> Probe:
    name, (low, high) = f"tflite.{kind}.{dtype}.{what}".lower(), limits(dtype)
    middle = (low + high + 1) // 2
    za, zb, zo = middle + 5, middle - 7, middle + 2
    a = Feed("ramp", (1, 1, *ROWS), dtype, low, high)
    b = Feed("random", (1, 1, *ROWS), dtype, low, high, seed_of(name))
    shape = a.shape[1:]
    tensors = [
        Tensor("a", shape, dtype, steps[0], za),
        Tensor("b", shape, dtype, steps[1], zb),
        Tensor("y", shape, dtype, steps[2], zo),
    ]
    model = tflite_file(
        tensors, [Operator(kind, ["a", "b"], "y", options, version)], ["a", "b"], "y"
    )
    return Probe(
        name,
        f"{kind} {dtype}",
        "tflite",
        model,
        (a, b),
        lambda: answer(a.codes() - za, b.codes() - zb, Scales(*steps), zo, low, high),
    )


def _multiplied(
    a: golden.Ints, b: golden.Ints, scales: Scales, zero: int, low: int, high: int
) -> dict[str, golden.Ints]:
    return golden.requantised(a * b, scales, zero, low, high, golden.WIDE)


def _unary(
    name: str,
    family: str,
    feed: Feed,
    operator: Operator,
    ends: tuple[Tensor, Tensor],
    expected: Expected,
    constants: tuple[Tensor, ...] = (),
) -> Probe:
    model = tflite_file([*ends, *constants], [operator], [ends[0].name], ends[1].name)
    return Probe(name, family, "tflite", model, (feed,), expected)


def _pool(dtype: str, zero: int, side: int, version: int) -> Probe:
    name, (low, high) = f"tflite.average_pool_2d.{dtype}.{side}x{side}", limits(dtype)
    feed = Feed("random", (1, 1, 16, 16, 16), dtype, low, high, seed_of(name))
    options: Any = schema.Pool2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideH = options.strideW = options.filterHeight = options.filterWidth = side
    n = 16 // side
    ends = (
        Tensor("x", feed.shape[1:], dtype, 0.5, zero),
        Tensor("y", (1, n, n, 16), dtype, 0.5, zero),
    )

    def expected() -> dict[str, golden.Ints]:
        # TFLite sums the codes themselves, zero point and all.
        total = feed.codes().reshape(1, 1, n, side, n, side, 16).sum(axis=(3, 5))
        return golden.averaged(total, side * side, 0, low, high)

    operator = Operator("AVERAGE_POOL_2D", ["x"], "y", options, version)
    return _unary(name, f"AVERAGE_POOL_2D {dtype}", feed, operator, ends, expected)


def _mean(dtype: str, zero: int, version: int) -> Probe:
    name, (low, high) = f"tflite.mean.{dtype}", limits(dtype)
    feed = Feed("random", (1, 1, 4, 4, 256), dtype, low, high, seed_of(name))
    options: Any = schema.ReducerOptionsT()
    options.keepDims = False
    ends = (
        Tensor("x", feed.shape[1:], dtype, 0.5, zero),
        Tensor("y", (1, 256), dtype, 0.125, zero),
    )

    def expected() -> dict[str, golden.Ints]:
        total = feed.codes().sum(axis=(2, 3)) - 16 * zero
        return golden.requantised(total, Scales(0.5, 1 / 16, 0.125), zero, low, high, golden.WIDE)

    operator = Operator("MEAN", ["x", "axes"], "y", options, version)
    axes = constant("axes", np.array([1, 2], np.int32))
    return _unary(name, f"MEAN {dtype}", feed, operator, ends, expected, (axes,))


def _requantise(dtype: str, zero: int, version: int) -> Probe:
    name, (low, high) = f"tflite.requantize.{dtype}", limits(dtype)
    feed = Feed("ramp", (1, 1, 256), dtype, low, high)
    ends = (
        Tensor("x", (1, 256), dtype, 0.0371, zero + 5),
        Tensor("y", (1, 256), dtype, 0.1484, zero - 3),  # quarters: every other code is a tie
    )

    def expected() -> dict[str, golden.Ints]:
        scales = Scales(0.0371, 1.0, 0.1484)
        codes = feed.codes() - zero - 5
        return golden.requantised(codes, scales, zero - 3, low, high, golden.WIDE)

    operator = Operator("QUANTIZE", ["x"], "y", schema.QuantizeOptionsT(), version)
    return _unary(name, f"REQUANTIZE {dtype}", feed, operator, ends, expected)


def _quantise(dtype: str, zero: int) -> Probe:
    low, high = limits(dtype)
    feed = Feed("ramp", (1, 1, 2048), "float32", -1024, 1023, scale=0.125)
    ends = (Tensor("x", (1, 2048), "float32"), Tensor("y", (1, 2048), dtype, 1.0, zero))
    operator = Operator("QUANTIZE", ["x"], "y", schema.QuantizeOptionsT())
    return _unary(
        f"tflite.quantize.{dtype}",
        f"QUANTIZE {dtype}",
        feed,
        operator,
        ends,
        lambda: golden.tabulated(feed.codes() * 0.125, zero, low, high),
    )


def _tables(dtype: str, zero: int, version: int) -> Iterator[Probe]:
    """Functions of one code, over all codes."""
    low, high = limits(dtype)
    kinds: list[tuple[str, Any, float, float, int, float_probes.Function]] = [
        ("LOGISTIC", None, 0.06, 1 / 256, low, float_probes.logistic),
        ("TANH", None, 0.03, 1 / 128, zero, np.tanh),
        ("HARD_SWISH", schema.HardSwishOptionsT(), 0.05, 0.04, zero, float_probes.hard_swish),
    ]
    for kind, options, step, out, zo, function in kinds:
        feed = Feed("ramp", (1, 1, 256), dtype, low, high)
        ends = (
            Tensor("x", (1, 256), dtype, step, zero + 4),
            Tensor("y", (1, 256), dtype, out, zo),
        )
        operator = Operator(kind, ["x"], "y", options, 1 if kind == "HARD_SWISH" else version)

        def expected(
            feed: Feed = feed,
            step: float = step,
            out: float = out,
            zo: int = zo,
            function: float_probes.Function = function,
        ) -> dict[str, golden.Ints]:
            x = (feed.codes() - zero - 4) * float(np.float32(step))
            return golden.tabulated(function(x) / float(np.float32(out)), zo, low, high)

        name = f"tflite.{kind}.{dtype}".lower()
        yield _unary(name, f"{kind} {dtype}", feed, operator, ends, expected)


def _softmax(dtype: str, zero: int, step: float, version: int) -> Probe:
    """2,048 rows of ten: of so many probabilities some lie close to a tie."""
    name, (low, high) = f"tflite.softmax.{dtype}.{step}", limits(dtype)
    feed = Feed("random", (1, 2048, 10), dtype, low, high, seed_of("softmax"))
    options: Any = schema.SoftmaxOptionsT()
    options.beta = 1.0
    ends = (
        Tensor("x", (2048, 10), dtype, step, zero),
        Tensor("y", (2048, 10), dtype, 1 / 256, low),
    )

    def expected() -> dict[str, golden.Ints]:
        real = golden.softmax(feed.codes() * float(np.float32(step))) * 256
        return golden.tabulated(real, low, low, high)

    operator = Operator("SOFTMAX", ["x"], "y", options, version)
    return _unary(name, f"SOFTMAX {dtype}", feed, operator, ends, expected)
