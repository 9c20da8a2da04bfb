"""Nets drawn at random and quantised here, from nothing: what the held-out corpus is made of.

Weights, shapes, inputs and ranges have other distributions than the quickstart's, and no trained
model, converter or calibration set of theirs is used. Labels are what the FP32 net answers, some of
them changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import helper, numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from orchestrator.models.write_tflite import Operator, Tensor, constant, tflite_file
from orchestrator.variance.lattice import Array
from tests.benchmarks.validity.case import Net
from tests.benchmarks.validity.recalibrate import Range, activations, ranges

CONV, DEPTHWISE, MEAN, DENSE = "CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED"
MANY, SAMPLES, WRONG_LABELS, CALIBRATION = 1200, 600, 0.05, 150
SOUND = 0.99
"""Share of decisions that a file must leave as they are.

Seven bits cost some nets more, and such a file is no place to look for false alarms.
"""
VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "u8s8.onnx": {"weight_type": QuantType.QInt8, "per_channel": True},
    "u8s8_rr.onnx": {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True},
    "u8u8.onnx": {"weight_type": QuantType.QUInt8, "extra_options": {"WeightSymmetric": False}},
}


@dataclass(frozen=True, eq=False)
class Step:
    """``weight``: OHWI, for a depthwise one [1, h, w, c], for a dense one [out, in]."""

    kind: str
    weight: Array
    bias: Array
    stride: int = 1
    relu: bool = False


@dataclass(frozen=True, eq=False)
class Drawn:
    """``net`` with the ``steps`` and the calibration ``ranges`` that its files were made from."""

    net: Net
    steps: tuple[Step, ...]
    ranges: tuple[Range, ...]


def drawn(name: str, random: np.random.Generator) -> Drawn:
    """A net whose decisions are sure enough that quantising it well costs little."""
    side, channels = int(random.choice([10, 12, 16])), int(random.choice([1, 3]))
    classes = int(random.integers(4, 9))
    many = _images(random, side, channels)
    steps = _levelled(_steps(random, channels, classes), many[:CALIBRATION])
    parent = to_tflite(steps, many.shape[1:])
    top = np.sort(activations(parent, many)[-1], axis=1)
    sure = np.argsort(top[:, -2] - top[:, -1])[:SAMPLES]
    images = np.ascontiguousarray(many[random.permutation(sure)])
    tensors = activations(parent, images)
    labels = tensors[-1].argmax(axis=1).astype(np.int64)
    wrong = random.random(len(labels)) < WRONG_LABELS
    labels[wrong] = random.integers(0, classes, int(wrong.sum()))
    spans = ranges([x[:CALIBRATION] for x in tensors])
    whole = to_onnx(steps, images.shape[1:])
    files = {"int8.tflite": to_tflite(steps, images.shape[1:], spans)}
    decided = tensors[-1].argmax(axis=1)
    files |= {
        file: model
        for file, model in quantised(whole, images[:CALIBRATION]).items()
        if (_decided(model, images) == decided).mean() >= SOUND
    }
    net = Net(name, files, {"onnx": whole, "tflite": parent}, images, labels)
    return Drawn(net, tuple(steps), tuple(spans))


def _decided(model: bytes, images: Array) -> Array:
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"t0": images.transpose(0, 3, 1, 2)})[0].argmax(axis=1)
    return found


def _levelled(steps: Sequence[Step], images: Array) -> list[Step]:
    """Every channel with mean 0 and deviation 1 before its activation, as training leaves them.

    Mishkin & Matas, "All you need is a good init", 2016.
    """
    found: list[Step] = []
    for step in steps:
        if step.kind != MEAN:
            plain = replace(step, relu=False)
            out = activations(to_tflite([*found, plain], images.shape[1:]), images)[-1]
            out = out.reshape(-1, out.shape[-1])
            spread, centre = out.std(axis=0) + 1e-6, out.mean(axis=0)
            shape = (-1,) if step.kind == DEPTHWISE else (-1, *[1] * (step.weight.ndim - 1))
            weight = (step.weight / spread.reshape(shape)).astype(np.float32)
            bias = ((step.bias - centre) / spread).astype(np.float32)
            step = replace(step, weight=weight, bias=bias)
        found.append(step)
    return found


def _images(random: np.random.Generator, side: int, channels: int) -> Array:
    """Coarse patterns, enlarged, with noise: from -1 to 1."""
    coarse = random.normal(0, 0.45, (MANY, -(-side // 3), -(-side // 3), channels))
    large = np.kron(coarse, np.ones((1, 3, 3, 1)))[:, :side, :side]
    noisy = large + random.laplace(0, 0.08, large.shape)
    return np.clip(noisy, -1, 1).astype(np.float32)


def _steps(random: np.random.Generator, channels: int, classes: int) -> list[Step]:
    found, width = [], channels
    count = int(random.integers(3, 6))
    for n in range(count):
        out = int(random.choice([8, 12, 16, 24]))
        # What is pooled has a ReLU, as in nets that were designed: means of both signs cancel, and
        # what is left of them is lost in the steps of any quantisation.
        relu = n == count - 1 or bool(random.random() < 0.8)
        if n and random.random() < 0.4:
            weight = random.laplace(0, 0.4, (1, 3, 3, width))
            found.append(Step(DEPTHWISE, *_ends(random, weight, width), 1, relu))
            continue
        kernel = int(random.choice([1, 3, 5])) if n else 3
        reach = np.sqrt(2 / (width * kernel * kernel))
        weight = random.laplace(0, reach / np.sqrt(2), (out, kernel, kernel, width))
        weight *= random.lognormal(0, 0.4, (out, 1, 1, 1))
        stride = 2 if n == 1 else 1
        found.append(Step(CONV, *_ends(random, weight, out), stride, relu))
        width = out
    empty = np.zeros(0, np.float32)
    found.append(Step(MEAN, empty, empty))
    for out, relu in ((int(random.choice([16, 24])), True), (classes, False)):
        weight = random.laplace(0, np.sqrt(1 / width), (out, width))
        found.append(Step(DENSE, *_ends(random, weight, out), 1, relu))
        width = out
    return found


def _ends(random: np.random.Generator, weight: Array, out: int) -> tuple[Array, Array]:
    return weight.astype(np.float32), random.normal(0, 0.1, out).astype(np.float32)


def to_tflite(
    steps: Sequence[Step], shape: Sequence[int], spans: Sequence[Range] | None = None
) -> bytes:
    """FP32; with ``spans``, of the input and each step's output, full-integer INT8."""
    dtype = "float32" if spans is None else "int8"
    lattices = [(None, 0)] * (len(steps) + 1) if spans is None else [_lattice(s) for s in spans]
    height, width, channels = shape
    tensors = [Tensor("t0", (1, height, width, channels), dtype, *lattices[0])]
    operators = []
    for n, step in enumerate(steps):
        given, made = f"t{n}", f"t{n + 1}"
        height, width = -(-height // step.stride), -(-width // step.stride)
        if step.kind in (CONV, DEPTHWISE):
            channels = len(step.bias)
            size: tuple[int, ...] = (1, height, width, channels)
        else:
            channels = channels if step.kind == MEAN else len(step.bias)
            size = (1, channels)
        tensors.append(Tensor(made, size, dtype, *lattices[n + 1]))
        if step.kind == MEAN:
            tensors.append(constant("axes", np.array([1, 2], np.int32)))
            operators.append(Operator(MEAN, [given, "axes"], made, _options(step), 2))
            continue
        tensors += _constants(step, n, lattices[n][0])
        version = {CONV: 3, DEPTHWISE: 3, DENSE: 4}[step.kind] if spans is not None else 1
        ends = [given, f"w{n}", f"b{n}"]
        operators.append(Operator(step.kind, ends, made, _options(step), version))
    return tflite_file(tensors, operators, ["t0"], f"t{len(steps)}")


def _constants(step: Step, n: int, scale: float | None) -> list[Any]:
    if scale is None:
        return [constant(f"w{n}", step.weight), constant(f"b{n}", step.bias)]
    axis = step.weight.ndim - 1 if step.kind == DEPTHWISE else 0
    others = tuple(i for i in range(step.weight.ndim) if i != axis)
    # A dense layer has one step for all its channels, as converters had it for long.
    largest = np.abs(step.weight).max(axis=None if step.kind == DENSE else others, keepdims=True)
    steps = np.maximum(largest, 1e-9) / 127
    codes = np.clip(np.rint(step.weight / steps), -127, 127).astype(np.int8)
    flat = steps.ravel().astype(np.float32)
    bias = np.rint(step.bias / (flat * np.float32(scale))).astype(np.int32)
    return [
        constant(f"w{n}", codes, flat, 0, axis),
        constant(f"b{n}", bias, flat * np.float32(scale), 0, 0),
    ]


def _lattice(span: Range) -> tuple[float, int]:
    scale = max(span[1] - span[0], 1e-6) / 255
    return scale, int(np.clip(round(-128 - span[0] / scale), -128, 127))


def _options(step: Step) -> Any:
    relu = schema.ActivationFunctionType.RELU if step.relu else 0
    if step.kind == MEAN:
        return schema.ReducerOptionsT()
    if step.kind == DENSE:
        dense = schema.FullyConnectedOptionsT()
        dense.fusedActivationFunction = relu
        return dense
    depthwise = step.kind == DEPTHWISE
    made: Any = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    made.strideH = made.strideW = step.stride
    made.padding, made.fusedActivationFunction = schema.Padding.SAME, relu
    made.dilationHFactor = made.dilationWFactor = 1
    if depthwise:
        made.depthMultiplier = 1
    return made


def to_onnx(steps: Sequence[Step], shape: Sequence[int]) -> bytes:
    nodes, weights, tensor = [], [], "t0"
    for n, step in enumerate(steps):
        made = f"t{n + 1}" if n + 1 < len(steps) else "logits"
        before = f"{made}_sum" if step.relu else made
        if step.kind == MEAN:
            nodes.append(helper.make_node("GlobalAveragePool", [tensor], [f"{made}_mean"]))
            nodes.append(helper.make_node("Flatten", [f"{made}_mean"], [made], axis=1))
        else:
            depthwise = step.kind == DEPTHWISE
            order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
            weight = step.weight if step.kind == DENSE else step.weight.transpose(order)
            weights += [
                numpy_helper.from_array(np.ascontiguousarray(weight), f"w{n}"),
                numpy_helper.from_array(step.bias, f"b{n}"),
            ]
            ends = [tensor, f"w{n}", f"b{n}"]
            if step.kind == DENSE:
                nodes.append(helper.make_node("Gemm", ends, [before], transB=1))
            else:
                about: dict[str, Any] = {
                    "strides": [step.stride] * 2,
                    "auto_pad": "SAME_UPPER",
                    "group": len(step.bias) if depthwise else 1,
                    "kernel_shape": list(weight.shape[2:]),
                }
                nodes.append(helper.make_node("Conv", ends, [before], **about))
            if step.relu:
                nodes.append(helper.make_node("Relu", [before], [made]))
        tensor = made
    height, width, channels = shape
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("t0", 1, ["N", channels, height, width])],
        [helper.make_tensor_value_info("logits", 1, ["N", len(steps[-1].bias)])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found: bytes = onnx.shape_inference.infer_shapes(model).SerializeToString()
    return found


class _Samples(CalibrationDataReader):  # type: ignore[misc,unused-ignore]
    def __init__(self, images: Array) -> None:
        self._each = iter([{"t0": x[None].transpose(0, 3, 1, 2)} for x in images])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._each, None)


def quantised(parent: bytes, images: Array) -> dict[str, bytes]:
    """The QDQ files that ONNX Runtime's quantiser makes of ``parent``."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "parent.onnx"
        source.write_bytes(parent)
        for file, options in VARIANTS.items():
            target = Path(name) / file
            quantize_static(
                source,
                target,
                _Samples(images),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                **options,
            )
            found[file] = target.read_bytes()
    return found
