"""ONNX probes of operators without weights: sums, products, averages, tables, float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from orchestrator.fingerprint import float_probes, golden
from orchestrator.fingerprint.constants import limits, seed_of
from orchestrator.fingerprint.golden import Scales
from orchestrator.fingerprint.probe import Feed, Probe
from orchestrator.fingerprint.tflite_maths import PAIRS, ROWS
from orchestrator.models.write_onnx import node, onnx_file

PAIR = ("a", "sa", "za", "b", "sb", "zb", "so", "zo")


def probes() -> Iterator[Probe]:
    for dtype in ("int8", "uint8"):
        zero = 0 if dtype == "int8" else 128
        for name, steps in PAIRS.items():
            yield _binary("QLinearAdd", dtype, zero, name, steps)
        yield _binary("QLinearMul", dtype, zero, "ties", (0.5, 0.5, 16.0))
        yield _binary("QLinearMul", dtype, zero, "odd", (0.0371, 0.0523, 0.617))
        yield _sigmoid(dtype, zero)
        yield _quantise(dtype, zero)
        yield _pool(dtype, zero)
        yield _softmax(dtype, zero)
    yield from _floats()


def _binary(
    kind: str, dtype: str, zero: int, what: str, steps: tuple[float, float, float]
) -> Probe:
    name, (low, high) = f"onnx.{kind}.{dtype}.{what}".lower(), limits(dtype)
    za, zb, zo = zero + 5, zero - 7, zero + 2
    a = Feed("ramp", (1, *ROWS), dtype, low, high)
    b = Feed("random", (1, *ROWS), dtype, low, high, seed_of(name))
    constants: dict[str, Any] = {
        key: np.float32(step) for key, step in zip(("sa", "sb", "so"), steps, strict=True)
    }
    constants |= {"za": np.array(za, dtype), "zb": np.array(zb, dtype), "zo": np.array(zo, dtype)}
    ends = {"a": (dtype, ROWS), "b": (dtype, ROWS)}
    model = onnx_file([node(kind, PAIR, "y")], ends, ("y", dtype), constants)

    def expected() -> dict[str, golden.Ints]:
        left, right = a.codes() - za, b.codes() - zb
        if kind == "QLinearAdd":
            return golden.added_float(left, right, Scales(*steps), zo, low, high)
        return golden.requantised(left * right, Scales(*steps), zo, low, high, golden.WIDE)

    return Probe(name, f"{kind} {dtype}", "onnx", model, (a, b), expected)


def _unary(
    kind: str, dtype: str, feed: Feed, steps: Any, zeros: Any, want: Any, **attributes: Any
) -> Probe:
    constants = {
        "sa": np.float32(steps[0]),
        "za": np.array(zeros[0], dtype),
        "so": np.float32(steps[1]),
        "zo": np.array(zeros[1], dtype),
    }
    kept = constants if feed.dtype == dtype else {k: constants[k] for k in ("so", "zo")}
    nodes = [node(kind, ["x", *kept], "y", **attributes)]
    model = onnx_file(nodes, {"x": (feed.dtype, feed.shape[1:])}, ("y", dtype), kept)
    return Probe(f"onnx.{kind}.{dtype}".lower(), f"{kind} {dtype}", "onnx", model, (feed,), want)


def _sigmoid(dtype: str, zero: int) -> Probe:
    low, high = limits(dtype)
    feed = Feed("ramp", (1, 1, 256), dtype, low, high)

    def expected() -> dict[str, golden.Ints]:
        x = (feed.codes() - zero - 4) * float(np.float32(0.06))
        return golden.tabulated(float_probes.logistic(x) * 256, low, low, high)

    ends = ((0.06, 1 / 256), (zero + 4, low))
    return _unary("QLinearSigmoid", dtype, feed, *ends, expected)


def _quantise(dtype: str, zero: int) -> Probe:
    low, high = limits(dtype)
    feed = Feed("ramp", (1, 1, 2048), "float32", -1024, 1023, scale=0.125)
    return _unary(
        "QuantizeLinear",
        dtype,
        feed,
        (1.0, 1.0),
        (0, zero),
        lambda: golden.tabulated(feed.codes() * 0.125, zero, low, high),
    )


def _pool(dtype: str, zero: int) -> Probe:
    low, high = limits(dtype)
    feed = Feed("random", (1, 1, 128, 4, 4), dtype, low, high, seed_of(f"pool {dtype}"))

    def expected() -> dict[str, golden.Ints]:
        total = (feed.codes() - zero).sum(axis=(3, 4), keepdims=True)
        return golden.requantised(total, Scales(0.5, 1 / 16, 0.125), zero, low, high, golden.WIDE)

    ends = ((0.5, 0.125), (zero, zero))
    return _unary("QLinearGlobalAveragePool", dtype, feed, *ends, expected)


def _softmax(dtype: str, zero: int) -> Probe:
    """2,048 rows of ten: of so many probabilities some lie close to a tie."""
    low, high = limits(dtype)
    feed = Feed("random", (1, 2048, 10), dtype, low, high, seed_of("softmax"))

    def expected() -> dict[str, golden.Ints]:
        real = golden.softmax(feed.codes() * float(np.float32(0.17))) * 256
        return golden.tabulated(real, low, low, high)

    ends = ((0.17, 1 / 256), (zero, low))
    return _unary("QLinearSoftmax", dtype, feed, *ends, expected, axis=-1, opset=13)


def _floats() -> Iterator[Probe]:
    """float32: whether products and sums are fused, denormals, exp."""
    a, b = float_probes.product_feeds()
    nodes = [node("MatMul", ["a", "b"], "y")]
    right = np.ascontiguousarray(b.values()[0].T)
    model = onnx_file(nodes, {"a": ("float32", a.shape[1:])}, ("y", "float32"), {"b": right})
    yield Probe(
        "onnx.matmul.float32",
        "MatMul float32",
        "onnx",
        model,
        (a,),
        lambda: float_probes.fused_or_not(a.values(), b.values().swapaxes(1, 2)),
    )
    tiny = float_probes.denormals()
    model = onnx_file(
        [node("Add", ["x", "x"], "y")], {"x": ("float32", tiny.shape[1:])}, ("y", "float32"), {}
    )
    yield Probe(
        "onnx.add.float32.denormal",
        "denormals",
        "onnx",
        model,
        (tiny,),
        lambda: float_probes.kept_or_flushed(tiny.values()),
    )
    rows = float_probes.rows()
    for kind in ("Softmax", "Sigmoid", "Tanh"):
        nodes = [node(kind, ["x"], "y")]
        model = onnx_file(nodes, {"x": ("float32", rows.shape[1:])}, ("y", "float32"), {})
        yield Probe(f"onnx.{kind}.float32".lower(), f"{kind} float32", "onnx", model, (rows,))
    yield from _wide()


def _wide() -> Iterator[Probe]:
    """Large enough to be shared out among threads; weights are inputs, which take no room."""
    rows, columns = _random("wide a", 64, 256), _random("wide b", 256, 128)
    image, kernel = _random("wide c", 1, 8, 24, 24), _random("wide d", 16, 8, 3, 3)
    codes = Feed("random", (1, 256, 128), "int8", -127, 127, seed_of("wide e"))
    dynamic = [
        helper.make_node("DynamicQuantizeLinear", ["a"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "b", "z"], "i"),
        node("Cast", ["i"], "f", to=TensorProto.FLOAT),
        node("Mul", ["f", "s"], "y"),
    ]
    for name, family, nodes, feeds in (
        ("matmul.float32", "MatMul wide float32", [node("MatMul", "ab", "y")], (rows, columns)),
        ("conv.float32", "Conv wide float32", [node("Conv", "ab", "y")], (image, kernel)),
        ("matmul.dynamic", "MatMul float32 by int8", dynamic, (rows, codes)),
    ):
        ends = {key: (feed.dtype, feed.shape[1:]) for key, feed in zip("ab", feeds, strict=True)}
        model = onnx_file(nodes, ends, ("y", "float32"), {})
        yield Probe(f"onnx.{name}.wide", family, "onnx", model, feeds)


def _random(name: str, *shape: int) -> Feed:
    return Feed("random", (1, *shape), "float32", -8192, 8192, seed_of(name), 2.0**-13)
