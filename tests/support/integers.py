"""ONNX Runtime's integer plans computed exactly, for either kind of int8 arithmetic.

What a processor with VNNI answers is so known on one without, and the other way round: products
are exact or `golden.saturated_product`, roundings MLAS' half-even.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.helper import get_attribute_value

from orchestrator.diagnosis.pair import Side, Trial, Tried
from orchestrator.fingerprint import golden
from orchestrator.fingerprint.golden import Ints, Scales
from orchestrator.models.graph import Array
from tests.support.isa import PAIRS

Operator = Callable[..., Array]


@dataclass(frozen=True, eq=False)
class Reference:
    """A side that computes integer operators itself and leaves those in float to ``base``.

    ``kind``: one of `isa.KINDS`. Plans are those that ``base`` makes.
    """

    kind: str
    base: Side
    name: str = "reference"

    def run(self, trials: Sequence[Trial], *, optimise: bool = True) -> list[Tried]:
        asked = [replace(trial, graph=trial.graph or optimise) for trial in trials]
        made = self.base.run(asked, optimise=optimise)
        return [self._computed(t, tried) for t, tried in zip(trials, made, strict=True)]

    def _computed(self, trial: Trial, tried: Tried) -> Tried:
        model = onnx.load_from_string(tried.graph or trial.model)
        if not any(node.op_type.startswith(("QLinear", "QGemm")) for node in model.graph.node):
            return tried
        together = [x.reshape(-1, *x.shape[2:]) for x in trial.inputs]
        count = len(trial.inputs[0])
        made = evaluate(model, together, self.kind)
        return replace(tried, outputs=tuple(y.reshape(count, -1, *y.shape[1:]) for y in made))


def evaluate(model: onnx.ModelProto, inputs: Sequence[Array], kind: str) -> list[Array]:
    """One inference on a plan of integer operators, of any batch: the first axis of all tensors.

    ``kind``: one of `isa.KINDS`; where pairs are added, products with int8 weights saturate as
    VPMADDUBSW's do.
    """
    pairs = kind == PAIRS
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    given = [v.name for v in model.graph.input if v.name not in constants]
    known: dict[str, Array] = constants | dict(zip(given, inputs, strict=True))
    operators = OPERATORS | {
        "QLinearConv": partial(_conv, pairs),
        "QGemm": partial(_gemm, pairs),
    }
    for node in model.graph.node:
        attributes = {a.name: get_attribute_value(a) for a in node.attribute}
        operands = [known[t] if t else None for t in node.input]
        known[node.output[0]] = operators[node.op_type](*operands, **attributes)
    return [known[v.name] for v in model.graph.output]


def _quantised(x: Array, scale: Array, zero: Array, **_: Any) -> Array:
    limits = np.iinfo(zero.dtype)
    codes = np.rint(x / scale) + zero
    return np.asarray(np.clip(codes, limits.min, limits.max), zero.dtype)


def _dequantised(x: Array, scale: Array, zero: Array, **_: Any) -> Array:
    return np.asarray((x.astype(np.int32) - np.int32(zero)) * scale, np.float32)


def _products(pairs: bool, rows: Ints, weights: Ints, zero: int, signed: tuple[bool, bool]) -> Ints:
    """(rows - zero) · weights; ``signed``: whether codes of rows and of weights are."""
    if not (pairs and signed[1]):  # float64 holds such sums exactly, and is added by BLAS
        return np.asarray((rows - zero).astype(float) @ weights.astype(float), np.int64)
    lift = 128 if signed[0] else 0  # kernels make signed bytes unsigned first
    sums = golden.saturated_product(rows + lift, weights)
    return np.asarray(sums - (zero + lift) * weights.sum(axis=0))


def _codes(acc: Ints, scales: Scales, zero: Array) -> Array:
    limits = np.iinfo(zero.dtype)
    codes = golden.half_even(acc, scales) + int(zero)
    return np.asarray(np.clip(codes, limits.min, limits.max), zero.dtype)


def _conv(
    pairs: bool,
    x: Array,
    *rest: Any,
    channels_last: int = 0,
    group: int = 1,
    pads: Sequence[int] = (0, 0, 0, 0),
    strides: Sequence[int] = (1, 1),
    **_: Any,
) -> Array:
    """``rest`` as QLinearConv has it: scale and zero point, weights with theirs, output's, bias.

    Groups are of one channel each: depthwise kernels widen bytes first and are exact everywhere.
    """
    scale, zero, w, w_scale, w_zero, out, out_zero, *bias = rest
    assert group == 1 or w.shape[:2] == (group, 1), "no kernel of these nets"
    x = x if channels_last else np.moveaxis(x, 1, -1)
    top, left, bottom, right = pads
    sides = ((0, 0), (top, bottom), (left, right), (0, 0))
    x = np.pad(x, sides, constant_values=zero)
    height, width = w.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1]].transpose(0, 1, 2, 4, 5, 3)
    weights = w.astype(np.int64) - np.reshape(w_zero, -1)[:1].astype(np.int64)
    shape, depth = windows.shape[:3], height * width * w.shape[1]
    if group > 1:
        taps = windows.reshape(*shape, depth, group).astype(float) - float(zero)
        acc = np.einsum("bhwkc,ck->bhwc", taps, weights.reshape(group, depth).astype(float))
        acc = acc.astype(np.int64)
    else:
        columns = weights.transpose(2, 3, 1, 0).reshape(depth, -1)
        rows = windows.reshape(-1, depth).astype(np.int64)
        acc = _products(pairs, rows, columns, int(zero), (x.dtype.kind == "i", w.dtype.kind == "i"))
    acc = acc + (bias[0].astype(np.int64) if bias else 0)
    found = _codes(acc, Scales(scale, w_scale, out), out_zero).reshape(*shape, -1)
    return found if channels_last else np.moveaxis(found, -1, 1)


def _gemm(pairs: bool, a: Array, *rest: Any, transB: int = 0, **_: Any) -> Array:  # noqa: N803
    """``rest`` as QGemm has it: scale and zero point, weights with theirs, bias, output's."""
    scale, zero, w, w_scale, w_zero, bias, out, out_zero = rest
    columns = (w.T if transB else w).astype(np.int64) - np.reshape(w_zero, -1)[:1].astype(np.int64)
    signed = a.dtype.kind == "i", w.dtype.kind == "i"
    acc = _products(pairs, a.astype(np.int64), columns, int(zero), signed)
    acc = acc + (0 if bias is None else bias.astype(np.int64))
    return _codes(acc, Scales(scale, w_scale, out), out_zero)


def _pooled(
    x: Array, scale: Array, zero: Array, out: Array, out_zero: Array, channels_last: int = 0
) -> Array:
    axes = (1, 2) if channels_last else (2, 3)
    count = x.shape[axes[0]] * x.shape[axes[1]]
    acc: NDArray[Any] = x.astype(np.int64).sum(axis=axes, keepdims=True) - count * int(zero)
    return _codes(acc, Scales(scale, np.float32(1) / np.float32(count), out), out_zero)


def _largest(
    x: Array, kernel_shape: Sequence[int], strides: Sequence[int] = (1, 1), **_: Any
) -> Array:
    """Channels last, without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(x, tuple(kernel_shape), axis=(1, 2))
    return np.asarray(windows[:, :: strides[0], :: strides[1]].max(axis=(-2, -1)))


OPERATORS: dict[str, Operator] = {
    "QuantizeLinear": _quantised,
    "DequantizeLinear": _dequantised,
    "QLinearGlobalAveragePool": _pooled,
    "NhwcMaxPool": _largest,
    "Transpose": lambda x, perm: x.transpose(perm),
    "Flatten": lambda x, axis=1: x.reshape(int(np.prod(x.shape[:axis])), -1),
    "Identity": lambda x: x,
}
