"""TFLite probes of float32: fused products, denormals, exp, sums large enough to be shared out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from orchestrator.fingerprint import float_probes
from orchestrator.fingerprint.constants import seed_of, stream
from orchestrator.fingerprint.probe import Expected, Feed, Probe
from orchestrator.models.write_tflite import Operator, Tensor, constant, tflite_file

ROWS, DEPTH, COLUMNS = 64, 64, 16


def probes() -> Iterator[Probe]:
    yield from _dense()
    yield _convolution()
    tiny = float_probes.denormals()
    yield _one(
        "tflite.add.float32.denormal",
        "denormals",
        tiny,
        Operator("ADD", ["x", "x"], "y", schema.AddOptionsT()),
        expected=lambda: float_probes.kept_or_flushed(tiny.values()),
    )
    softmax: Any = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    for kind, options in (("SOFTMAX", softmax), ("LOGISTIC", None), ("TANH", None)):
        name = f"tflite.{kind}.float32".lower()
        yield _one(
            name, f"{kind} float32", float_probes.rows(), Operator(kind, ["x"], "y", options)
        )


def _one(
    name: str,
    family: str,
    feed: Feed,
    operator: Operator,
    constants: tuple[Tensor, ...] = (),
    shape: tuple[int, ...] | None = None,
    expected: Expected = dict,
) -> Probe:
    """``shape``: of the output, where it is not the input's."""
    tensors = [
        Tensor("x", feed.shape[1:], "float32"),
        Tensor("y", shape or feed.shape[1:], "float32"),
        *constants,
    ]
    model = tflite_file(tensors, [operator], ["x"], "y")
    return Probe(name, family, "tflite", model, (feed,), expected)


def _dense() -> Iterator[Probe]:
    a, b = float_probes.product_feeds()
    dense = Operator("FULLY_CONNECTED", ["x", "w"], "y", schema.FullyConnectedOptionsT())
    yield _one(
        "tflite.fully_connected.float32",
        "FULLY_CONNECTED float32",
        a,
        dense,
        (constant("w", b.values()[0]),),
        (16, 16),
        lambda: float_probes.fused_or_not(a.values(), b.values().swapaxes(1, 2)),
    )
    wide = Feed("random", (1, ROWS, DEPTH), "float32", -8192, 8192, seed_of("wide a"), 2.0**-13)
    yield _one(
        "tflite.fully_connected.float32.wide",
        "FULLY_CONNECTED wide float32",
        wide,
        dense,
        (constant("w", _weights("wide", COLUMNS, DEPTH)),),
        (ROWS, COLUMNS),
    )
    # "Dynamic range": the kernel quantises the input itself, with float arithmetic of its own.
    codes = stream("hybrid").randint(-127, 128, (COLUMNS, DEPTH)).astype(np.int8)
    hybrid = Operator(
        "FULLY_CONNECTED", ["x", "w"], "y", schema.FullyConnectedOptionsT(), version=3
    )
    yield _one(
        "tflite.fully_connected.hybrid",
        "FULLY_CONNECTED float32 by int8",
        wide,
        hybrid,
        (constant("w", codes, 0.0123),),
        (ROWS, COLUMNS),
    )


def _convolution() -> Probe:
    feed = Feed("random", (1, 1, 24, 24, 8), "float32", -8192, 8192, seed_of("wide c"), 2.0**-13)
    options: Any = schema.Conv2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
    weights = constant("w", _weights("conv", 16, 3, 3, 8))
    bias = constant("b", np.zeros(16, np.float32))
    operator = Operator("CONV_2D", ["x", "w", "b"], "y", options)
    name = "tflite.conv_2d.float32.wide"
    return _one(name, "CONV_2D wide float32", feed, operator, (weights, bias), (1, 22, 22, 16))


def _weights(name: str, *shape: int) -> NDArray[np.float32]:
    """Of eight bits, so that they take little room; their sums of products do not fit 24."""
    return (stream(name).randint(-127, 128, shape) * 2.0**-7).astype(np.float32)
