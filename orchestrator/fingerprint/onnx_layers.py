"""ONNX probes of matrix products: MatMulInteger, QLinear operators, and the QDQ forms of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.fingerprint import golden
from orchestrator.fingerprint.constants import limits, odd, seed_of, stream
from orchestrator.fingerprint.describe import SATURATES
from orchestrator.fingerprint.golden import Ints, Scales
from orchestrator.fingerprint.probe import Feed, Probe
from orchestrator.models.write_onnx import node, onnx_file

SCALE_IN, SCALE_OUT = np.float32(0.5), np.float32(0.25)
SHORT = {"uint8": "u8", "int8": "s8"}
TYPES = (("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8"))


@dataclass(frozen=True)
class Product:
    """``op``: matmul, conv or gemm; ``form``: qlinear, qdq (codes in, codes out) or float (QDQ).

    ``bits``: 8 for weights up to ±127, whose pairs can overflow int16 against unsigned bytes; 7
    for half of that, which cannot. ``ties``: accumulators are one input plus a bias.
    ``rows`` is a square for conv: its pixels.
    """

    op: str
    form: str
    a: str
    w: str
    per_channel: bool = True
    bits: int = 8
    ties: float = 0.0
    relu: bool = False
    rows: int = 64
    depth: int = 16
    columns: int = 8

    @property
    def name(self) -> str:
        grain = "channel" if self.per_channel else "tensor"
        what = f"ties{round(1 / self.ties)}" if self.ties else f"odd{self.bits}"
        parts = [self.form, self.op, SHORT[self.a] + SHORT[self.w], grain]
        shape = f"{self.rows}x{self.depth}x{self.columns}"
        return ".".join(["onnx", *parts, shape, what] + ["relu"] * self.relu)

    @property
    def family(self) -> str:
        kind = {"conv": "Conv", "gemm": "Gemm", "matmul": "MatMul"}[self.op]
        form = {
            "qlinear": f"QLinear{kind}",
            "qdq": f"QDQ {kind}",
            "float": f"QDQ {kind} float ends",
        }
        grain = "channel" if self.per_channel else "tensor"
        return f"{form[self.form]} {(SHORT[self.a] + SHORT[self.w]).upper()} per-{grain}"


def probe(spec: Product) -> Probe:
    draw = stream(spec.name)
    low, high = limits(spec.a)
    zero_in = 128 if spec.a == "uint8" else 0
    zero_w = 128 if spec.w == "uint8" else 0
    zero_out = low if spec.relu else zero_in - 3
    reach = 127 if spec.bits == 8 else 63
    weights = draw.randint(-reach, reach + 1, (spec.depth, spec.columns)).astype(np.int64)
    multiplier = odd(draw, 60 / (np.sqrt(spec.depth) * 73 * reach * 0.58), spec.columns)
    bias = draw.randint(-500, 501, spec.columns).astype(np.int64)
    if spec.op == "matmul":
        bias[:] = 0
    if spec.ties:
        weights[:] = 0
        weights[np.arange(spec.columns) % spec.depth, np.arange(spec.columns)] = 1
        multiplier = np.exp2(-(np.arange(spec.columns) % 6 + 1)).astype(np.float32)
        if not spec.per_channel:
            multiplier[:] = spec.ties
    scale_w = multiplier * SCALE_OUT / SCALE_IN
    scale_w = scale_w if spec.per_channel else scale_w[0]
    off = zero_in if spec.form == "float" else 0
    shape = (spec.rows, spec.depth)
    side = round(spec.rows**0.5)
    if spec.op == "conv":
        shape = (1, spec.depth, side, side)  # type: ignore[assignment]
    real = ("float32", low - off, high - off, seed_of(spec.name), float(SCALE_IN))
    codes = (spec.a, low, high, seed_of(spec.name))
    feed = Feed("random", (1, *shape), *(real if spec.form == "float" else codes))

    def expected() -> Mapping[str, Ints]:
        rows = feed.codes()[0] + off
        if spec.op == "conv":
            rows = rows.reshape(spec.depth, -1).T
        exact = golden.product(rows - zero_in, weights) + bias
        scales = Scales(SCALE_IN, scale_w, SCALE_OUT)
        found = golden.requantised(exact, scales, zero_out, low, high)
        if spec.w == "int8":
            lift = 0 if spec.a == "uint8" else 128  # kernels make signed bytes unsigned first
            pairs = golden.saturated_product(rows + lift, weights)
            short = pairs - (zero_in + lift) * weights.sum(axis=0) + bias
            found[SATURATES + "half-even"] = np.clip(
                golden.half_even(short, scales) + zero_out, low, high
            )
        less = zero_out if spec.form == "float" else 0
        return {mode: _shaped(codes - less, spec.op, side) for mode, codes in found.items()}

    stored = (weights + zero_w).astype(spec.w)
    constants = _constants(spec, stored, scale_w, bias, (zero_in, zero_w, zero_out))
    dtype = "float32" if spec.form == "float" else spec.a
    ends = ("real", "answer") if spec.form == "float" else ("x", "y")
    model = onnx_file(_nodes(spec), {ends[0]: (dtype, shape)}, (ends[1], dtype), constants)
    step = float(SCALE_OUT) if spec.form == "float" else None
    args = (spec.name, spec.family, "onnx", model, (feed,), expected, step)
    return Probe(*args, graph=spec.form != "qlinear")


def _shaped(codes: Ints, op: str, side: int) -> Ints:
    """[rows, columns] as the model puts it out, with the axis of runs."""
    return codes.T.reshape(1, 1, -1, side, side) if op == "conv" else codes[None]


def _constants(
    spec: Product, stored: NDArray[Any], scale_w: Any, bias: Ints, zeros: tuple[int, int, int]
) -> dict[str, Any]:
    zero_in, zero_w, zero_out = zeros
    found: dict[str, Any] = {
        "sa": SCALE_IN,
        "za": np.array(zero_in, spec.a),
        "so": SCALE_OUT,
        "zo": np.array(zero_out, spec.a),
        "sw": np.asarray(scale_w, np.float32),
        "zw": np.full(np.shape(scale_w), zero_w, spec.w),
        "w": stored if spec.op == "matmul" else np.ascontiguousarray(stored.T),
    }
    if spec.op == "conv":
        found["w"] = found["w"].reshape(spec.columns, spec.depth, 1, 1)
    if spec.op != "matmul":
        found["b"] = bias.astype(np.int32)
        if spec.form != "qlinear":
            found["sb"] = np.asarray(scale_w * SCALE_IN, np.float32)
            found["zb"] = np.zeros(np.shape(scale_w), np.int32)
    return found


def _nodes(spec: Product) -> list[Any]:
    if spec.form == "qlinear":
        ends = ["x", "sa", "za", "w", "sw", "zw", "so", "zo"]
        biased = [*ends, "b"] if spec.op == "conv" else ends
        return [node("QLinearConv" if spec.op == "conv" else "QLinearMatMul", biased, "y")]
    axis = {"axis": 1 if spec.op == "matmul" else 0} if spec.per_channel else {}
    steps = [node("QuantizeLinear", ["real", "sa", "za"], "x")] if spec.form == "float" else []
    steps += [
        node("DequantizeLinear", ["x", "sa", "za"], "xf"),
        node("DequantizeLinear", ["w", "sw", "zw"], "wf", **axis),
    ]
    given = ["xf", "wf"]
    if spec.op != "matmul":
        steps.append(node("DequantizeLinear", ["b", "sb", "zb"], "bf", **axis))
        given.append("bf")
    kind = {"conv": "Conv", "gemm": "Gemm", "matmul": "MatMul"}[spec.op]
    steps.append(node(kind, given, "yf", **({"transB": 1} if spec.op == "gemm" else {})))
    if spec.relu:
        steps.append(node("Relu", ["yf"], "rf"))
    steps.append(node("QuantizeLinear", ["rf" if spec.relu else "yf", "so", "zo"], "y"))
    if spec.form == "float":
        steps.append(node("DequantizeLinear", ["y", "so", "zo"], "answer"))
    return steps


def integer_product(a: str, w: str, rows: int, depth: int, zero: int, columns: int = 8) -> Probe:
    """MatMulInteger: the accumulators themselves. ``zero``: zero point of the left side."""
    name = f"onnx.matmulinteger.{SHORT[a]}{SHORT[w]}.{rows}x{depth}x{columns}.zero{zero}"
    low, high = limits(a)
    feed = Feed("random", (1, rows, depth), a, low, high, seed_of(name))
    draw, zero_w = stream(name), 128 if w == "uint8" else 0
    weights = draw.randint(-127, 128, (depth, columns)).astype(np.int64)

    def expected() -> Mapping[str, Ints]:
        rows = feed.codes()[0]
        found = {"exact": golden.product(rows - zero, weights)[None]}
        if w == "int8":
            lift = 0 if a == "uint8" else 128
            pairs = golden.saturated_product(rows + lift, weights)
            found[SATURATES + "exact"] = (pairs - (zero + lift) * weights.sum(axis=0))[None]
        return found

    constants = {
        "w": (weights + zero_w).astype(w),
        "za": np.array(zero, a),
        "zw": np.array(zero_w, w),
    }
    nodes = [node("MatMulInteger", ["x", "w", "za", "zw"], "y")]
    model = onnx_file(nodes, {"x": (a, feed.shape[1:])}, ("y", "int32"), constants)
    family = f"MatMulInteger {(SHORT[a] + SHORT[w]).upper()}"
    return Probe(name, family, "onnx", model, (feed,), expected)


def spatial(a: str, w: str, depthwise: bool, kernel: int, ties: bool) -> Probe:
    """QLinearConv over a window; per channel."""
    kind = "depthwise" if depthwise else "conv"
    what = "ties" if ties else "odd"
    name = f"onnx.qlinear.{kind}.{SHORT[a]}{SHORT[w]}.channel.{kernel}x{kernel}.{what}"
    draw, (low, high), c, n = stream(name), limits(a), 8, 8 if depthwise else 16
    zero_in = 128 if a == "uint8" else 0
    feed = Feed("random", (1, 1, c, 12, 12), a, low, high, seed_of(name))
    shape = (1, kernel, kernel, c) if depthwise else (n, kernel, kernel, c)
    weights = draw.randint(-63, 64, shape).astype(np.int64)
    reach = np.sqrt(np.prod(shape[1:3]) * (1 if depthwise else c)) * 73 * 37
    multiplier = odd(draw, 60 / reach, n)
    if ties:
        weights[:] = 0
        weights[:, kernel // 2, kernel // 2, slice(None) if depthwise else 0] = 1
        multiplier = np.exp2(-(np.arange(n) % 6 + 1)).astype(np.float32)
    bias = draw.randint(-60, 61, n).astype(np.int64)
    scale_w = multiplier * SCALE_OUT / SCALE_IN

    def expected() -> Mapping[str, Ints]:
        x = feed.codes()[0].transpose(0, 2, 3, 1) - zero_in
        acc = golden.convolved(x, weights) + bias
        found = golden.requantised(acc, Scales(SCALE_IN, scale_w, SCALE_OUT), zero_in, low, high)
        return {mode: codes.transpose(0, 3, 1, 2)[None] for mode, codes in found.items()}

    stored = weights.transpose(3, 0, 1, 2) if depthwise else weights.transpose(0, 3, 1, 2)
    constants: dict[str, Any] = {
        "sa": SCALE_IN,
        "za": np.array(zero_in, a),
        "so": SCALE_OUT,
        "w": stored.astype(w),
        "sw": scale_w,
        "zw": np.zeros(n, w),
        "b": bias.astype(np.int32),
    }
    ends = ["x", "sa", "za", "w", "sw", "zw", "so", "za", "b"]
    nodes = [node("QLinearConv", ends, "y", group=c if depthwise else 1)]
    model = onnx_file(nodes, {"x": (a, feed.shape[1:])}, ("y", a), constants)
    family = f"QLinearConv {'depthwise' if depthwise else f'{kernel}x{kernel}'}"
    family += f" {(SHORT[a] + SHORT[w]).upper()} per-channel"
    return Probe(name, family, "onnx", model, (feed,), expected)


def probes() -> Iterator[Probe]:
    for a, w in TYPES:
        for rows, depth in ((1, 2), (1, 64), (16, 2), (16, 64), (5, 17), (3, 7)):
            for zero in (0, 128 if a == "uint8" else 3):
                yield integer_product(a, w, rows, depth, zero, 8 if depth != 17 else 9)
        per_channel = w == "int8"
        for form, ops in (
            ("qlinear", ("matmul", "conv")),
            ("qdq", ("matmul", "conv", "gemm")),
            ("float", ("matmul", "conv", "gemm")),
        ):
            for op in ops:
                base = (op, form, a, w, per_channel)
                yield probe(Product(*base, 7))
                yield probe(Product(*base, 8))
                yield probe(Product(*base, ties=0.0625))
                if form != "qlinear":
                    yield probe(Product(*base, 7, relu=True))
        yield probe(Product("conv", "qlinear", a, w, per_channel, 7, rows=400))
        yield probe(Product("matmul", "qlinear", a, w, per_channel, 7, rows=400))
        if per_channel:
            yield probe(Product("conv", "qlinear", a, w, False, ties=0.0625))
            yield probe(Product("matmul", "qlinear", a, w, False, ties=0.0625))
        yield probe(Product("conv", "qlinear", a, w, False, rows=25, depth=5, columns=3))
        yield probe(Product("matmul", "qlinear", a, w, False, rows=5, depth=17, columns=9))
    for a in ("uint8", "int8"):
        for depthwise, kernel in ((False, 3), (False, 5), (False, 7), (True, 3)):
            for ties in (True, False) if kernel == 3 else (True,):
                yield spatial(a, "int8", depthwise, kernel, ties)
