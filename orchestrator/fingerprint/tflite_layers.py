"""TFLite probes of operators with weights: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from orchestrator.fingerprint import golden
from orchestrator.fingerprint.constants import limits, odd, seed_of, stream
from orchestrator.fingerprint.golden import Ints, Scales
from orchestrator.fingerprint.probe import Feed, Probe
from orchestrator.models.write_tflite import Operator, Tensor, constant, tflite_file

SCALE_IN, SCALE_OUT = np.float32(0.5), np.float32(0.25)
CONV, DEPTHWISE, DENSE = "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"
VERSIONS = {CONV: (1, 3), DEPTHWISE: (1, 3), DENSE: (1, 4)}
"""First version that takes uint8, int8."""


@dataclass(frozen=True)
class Layer:
    """A layer with weights whose results fall between codes, or on ties.

    ``ties``: 0 for multipliers that are no round numbers and weights of every size; else every
    accumulator is one input plus a bias, and the multiplier ``ties`` (per channel: 1/2 … 1/64), so
    that many results lie exactly between two codes. ``batch``: rows of a FULLY_CONNECTED.
    """

    kind: str
    dtype: str
    per_channel: bool
    kernel: int = 1
    ties: float = 0.0
    relu: bool = False
    inputs: int = 8
    outputs: int = 16
    side: int = 16
    batch: int = 16
    runs: int = 1
    float_ends: bool = False

    @property
    def name(self) -> str:
        shape = (
            f"{self.side}.{self.kernel}x{self.kernel}" if self.kind != DENSE else f"{self.batch}"
        )
        grain = "channel" if self.per_channel else "tensor"
        what = f"ties{round(1 / self.ties)}" if self.ties else "odd"
        parts = [self.kind, self.dtype, grain, f"{shape}x{self.inputs}x{self.outputs}", what]
        more = ["relu"] * self.relu + ["float"] * self.float_ends
        return ".".join(["tflite", *parts, *more]).lower()

    @property
    def family(self) -> str:
        grain = "channel" if self.per_channel else "tensor"
        ends = " float ends" if self.float_ends else ""
        return f"{self.kind} {self.dtype} per-{grain}{ends}{self._other_kernel}"

    @property
    def _other_kernel(self) -> str:
        """For what sizes runtimes have kernels of their own."""
        if self.kind == DENSE:
            return " batch 1" if self.batch == 1 else ""
        if self.kind == DEPTHWISE:
            return " tail" if self.tail else ""
        return " one channel" if self.inputs == self.outputs == 1 else ""

    @property
    def tail(self) -> bool:
        """Whether channels are left over when they are taken eight at a time."""
        return self.kind == DEPTHWISE and self.inputs % 8 > 0


def probe(layer: Layer) -> Probe:
    draw = stream(layer.name)
    unsigned = layer.dtype == "uint8"
    low, high = limits(layer.dtype)
    zero_in, zero_w, zero_out = (131, 125, 120) if unsigned else (3, 0, -5)
    zero_out = low if layer.relu else zero_out
    weights, bias = _weights(layer, draw, zero_w)
    reach = np.sqrt(layer.kernel**2 * (1 if layer.kind == DEPTHWISE else layer.inputs)) * 73 * 73
    multiplier = odd(draw, 60 / reach, layer.outputs)
    if layer.ties:
        # 1/16 first: at 1/2 the two roundings of gemmlowp are one.
        powers = (np.arange(layer.outputs) + 3) % 6 + 1
        multiplier = np.exp2(-powers).astype(np.float32)
        if not layer.per_channel:
            multiplier[:] = layer.ties
    scale_w = multiplier * SCALE_OUT / SCALE_IN
    scale_w = scale_w if layer.per_channel else scale_w[:1]
    if layer.kind == DENSE:
        shape: tuple[int, ...] = (layer.batch, layer.inputs)
    else:
        shape = (1, layer.side, layer.side, layer.inputs)
    feed = Feed("random", (layer.runs, *shape), layer.dtype, low, high, seed_of(layer.name))
    if layer.float_ends:  # less its zero point, so that quantising it gives every code back
        feed = Feed(
            "random",
            feed.shape,
            "float32",
            low - zero_in,
            high - zero_in,
            feed.seed,
            float(SCALE_IN),
        )

    def expected() -> Mapping[str, Ints]:
        x = feed.codes() - (0 if layer.float_ends else zero_in)
        acc = _accumulators(layer, x, weights) + bias
        scales = Scales(SCALE_IN, scale_w, SCALE_OUT)
        known = golden.DEPTHWISE if layer.tail else golden.ROUNDINGS
        found = golden.requantised(acc, scales, zero_out, low, high, known)
        off = zero_out if layer.float_ends else 0
        return {mode: codes - off for mode, codes in found.items()}

    kind = weights.astype(np.int64) + zero_w
    stored = kind.astype(layer.dtype).reshape(
        (-1, layer.inputs) if layer.kind == DENSE else weights.shape
    )
    model = _file(layer, shape, stored, scale_w, bias, (zero_in, zero_w, zero_out))
    step = float(SCALE_OUT) if layer.float_ends else None
    return Probe(layer.name, layer.family, "tflite", model, (feed,), expected, step)


def _weights(layer: Layer, draw: np.random.RandomState, zero: int) -> tuple[Ints, Ints]:
    """[N, k, k, C] (depthwise: [1, k, k, C]) less their zero point, and the biases [N]."""
    k, c, n = layer.kernel, layer.inputs, layer.outputs
    shape = (1, k, k, c) if layer.kind == DEPTHWISE else (n, k, k, c)
    if not layer.ties:
        weights = draw.randint(-120, 121, shape).astype(np.int64)
        return weights, draw.randint(-2000, 2001, n).astype(np.int64)
    weights = np.zeros(shape, np.int64)
    if layer.kind == DEPTHWISE:
        weights[0, k // 2, k // 2] = 1
    else:
        weights[np.arange(n), k // 2, k // 2, np.arange(n) % c] = 1
    return weights, draw.randint(-60, 61, n).astype(np.int64)


def _accumulators(layer: Layer, x: Ints, weights: Ints) -> Ints:
    if layer.kind == DENSE:
        return np.asarray(x @ weights[:, 0, 0].T)
    return np.stack([golden.convolved(run, weights) for run in x])


def _file(
    layer: Layer,
    shape: tuple[int, ...],
    weights: Any,
    scale_w: Any,
    bias: Ints,
    zeros: tuple[int, int, int],
) -> bytes:
    zero_in, zero_w, zero_out = zeros
    side = layer.side - layer.kernel + 1
    out = (layer.batch, layer.outputs) if layer.kind == DENSE else (1, side, side, layer.outputs)
    tensors = [
        Tensor("x", shape, layer.dtype, SCALE_IN, zero_in),
        constant("w", weights, scale_w, zero_w, 3 if layer.kind == DEPTHWISE else 0),
        constant("b", bias.astype(np.int32), scale_w * SCALE_IN),
        Tensor("y", out, layer.dtype, SCALE_OUT, zero_out),
    ]
    version = VERSIONS[layer.kind][layer.dtype == "int8"]
    step = Operator(layer.kind, ["x", "w", "b"], "y", _options(layer), version)
    if not layer.float_ends:
        return tflite_file(tensors, [step], ["x"], "y")
    tensors += [Tensor("real", shape, "float32"), Tensor("answer", out, "float32")]
    steps = [
        Operator("QUANTIZE", ["real"], "x", schema.QuantizeOptionsT()),
        step,
        Operator("DEQUANTIZE", ["y"], "answer", schema.DequantizeOptionsT(), 2),
    ]
    return tflite_file(tensors, steps, ["real"], "answer")


def _options(layer: Layer) -> Any:
    made: Any
    if layer.kind == DENSE:
        made = schema.FullyConnectedOptionsT()
    else:
        made = schema.Conv2DOptionsT() if layer.kind == CONV else schema.DepthwiseConv2DOptionsT()
        made.padding = schema.Padding.VALID
        made.strideH = made.strideW = made.dilationHFactor = made.dilationWFactor = 1
        if layer.kind == DEPTHWISE:
            made.depthMultiplier = 1
    made.fusedActivationFunction = schema.ActivationFunctionType.RELU if layer.relu else 0
    return made


def probes() -> Iterator[Probe]:
    """Every kind, type and granularity: odd multipliers, ties, activation, tails of tiles."""
    grains = (("int8", True), ("int8", False), ("uint8", False))
    for dtype, per_channel in grains:
        ties = (0.5,) if per_channel else (0.5, 0.0625)
        for kind, kernels in ((CONV, (1, 3)), (DEPTHWISE, (3,)), (DENSE, (1,))):
            out = 8 if kind == DEPTHWISE else 16
            for kernel in kernels:
                base = (kind, dtype, per_channel, kernel)
                yield probe(Layer(*base, outputs=out))
                yield probe(Layer(*base, outputs=out, relu=True))
                for tie in ties:
                    yield probe(Layer(*base, tie, outputs=out))
                yield probe(Layer(*base, ties[0], True, outputs=out))
        yield probe(Layer(DENSE, dtype, per_channel, batch=1, runs=32))
        for tie in (0.5, 0.0625):
            yield probe(Layer(DENSE, dtype, per_channel, ties=tie, batch=1, runs=32))
        for tie in (0.0, 0.0625):
            yield probe(Layer(CONV, dtype, per_channel, 1, tie, inputs=1, outputs=1, side=24))
        for inputs, outputs in ((3, 5), (17, 9)):
            yield probe(Layer(DENSE, dtype, per_channel, inputs=inputs, outputs=outputs, batch=3))
            yield probe(Layer(CONV, dtype, per_channel, inputs=inputs, outputs=outputs, side=5))
        for channels in (5, 17):
            for tie in (0.0, 0.0625):
                yield probe(
                    Layer(DEPTHWISE, dtype, per_channel, 3, tie, False, channels, channels, 7)
                )
        yield probe(Layer(CONV, dtype, per_channel, 3, side=32))
        yield probe(Layer(DEPTHWISE, dtype, per_channel, 3, outputs=8, side=32))
        yield probe(Layer(DENSE, dtype, per_channel, inputs=32, outputs=32, batch=128))
    for kernel in (5, 7):
        yield probe(Layer(CONV, "int8", True, kernel, 0.5))
        yield probe(Layer(DEPTHWISE, "int8", True, kernel, 0.5, outputs=8))
    for kind in (CONV, DENSE):
        yield probe(Layer(kind, "int8", True, float_ends=True))
        yield probe(Layer(kind, "int8", True, ties=0.5, float_ends=True))
