"""An INT8 TFLite file quantised again with other calibration ranges.

Weights stay as they are: ranges are of activations. Biases follow their input's new step, as in
every full-integer file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from orchestrator.models.inspect_tflite import operator_names
from orchestrator.variance.lattice import Array
from tests.benchmarks.validity.weights import packed

Range = tuple[float, float]
_SAME = ("MAX_POOL_2D", "RESHAPE")
"""They hand codes on: their output has the lattice of their input."""


def activations(parent: bytes, images: Array) -> list[Array]:
    """What the FP32 file makes of ``images`` [n, ...]: its input, then each operator's output."""
    interpreter = Interpreter(
        model_content=parent,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    start = interpreter.get_input_details()[0]["index"]
    ends = [int(op["outputs"][0]) for op in interpreter._get_ops_details()]
    found: list[list[Array]] = []
    for image in images:
        interpreter.set_tensor(start, image[None])
        interpreter.invoke()
        found.append([interpreter.get_tensor(i) for i in (start, *ends)])
    return [np.concatenate(tensors) for tensors in zip(*found, strict=True)]


def ranges(tensors: Sequence[Array]) -> list[Range]:
    """Smallest and largest value, zero included, as converters take them."""
    return [(min(0.0, float(x.min())), max(0.0, float(x.max()))) for x in tensors]


def recalibrated(model: bytes, new: Sequence[Range | None]) -> bytes:
    """``new``: of the input, then of each operator's first output; None leaves it as it is."""
    unpacked: Any = schema.ModelT.InitFromPackedBuf(model, 0)
    names = operator_names(schema.Model.GetRootAs(model, 0))
    graph = unpacked.subgraphs[0]
    before = {i: _scale(tensor) for i, tensor in enumerate(graph.tensors)}
    targets = [graph.inputs[0], *(op.outputs[0] for op in graph.operators)]
    for tensor, span in zip(targets, new, strict=True):
        if span is not None:
            _set(graph.tensors[tensor], *_lattice(span))
    for op in graph.operators:
        given, made = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
        if names[op.opcodeIndex] in _SAME:
            _set(made, _scale(given), int(given.quantization.zeroPoint[0]))
        if len(op.inputs) > 2 and op.inputs[2] >= 0:
            _follow(unpacked, graph.tensors[op.inputs[2]], _scale(given) / before[op.inputs[0]])
    return packed(unpacked)


def bias_moved(model: bytes, index: int, amount: float) -> bytes:
    """The last operator with a bias gets ``amount``, in real units, more on one output channel."""
    unpacked: Any = schema.ModelT.InitFromPackedBuf(model, 0)
    graph = unpacked.subgraphs[0]
    last = [op for op in graph.operators if len(op.inputs) > 2 and op.inputs[2] >= 0][-1]
    tensor = graph.tensors[last.inputs[2]]
    scales = np.atleast_1d(tensor.quantization.scale)
    codes = _codes(unpacked, tensor)
    codes[index] += round(amount / float(scales[index % len(scales)]))
    unpacked.buffers[tensor.buffer].data = np.frombuffer(codes.astype(np.int32).tobytes(), np.uint8)
    return packed(unpacked)


def _codes(model: Any, tensor: Any) -> Array:
    data = np.asarray(model.buffers[tensor.buffer].data, np.uint8).tobytes()
    return np.frombuffer(data, np.int32).astype(np.int64)


def _follow(model: Any, bias: Any, growth: float) -> None:
    """Its codes in steps that are ``growth`` times as large."""
    codes = np.rint(_codes(model, bias) / growth).astype(np.int32)
    model.buffers[bias.buffer].data = np.frombuffer(codes.tobytes(), np.uint8)
    bias.quantization.scale = np.asarray(bias.quantization.scale, np.float32) * np.float32(growth)


def _scale(tensor: Any) -> float:
    known = None if tensor.quantization is None else tensor.quantization.scale
    return float(known[0]) if known is not None and len(known) else 0.0


def _lattice(span: Range) -> tuple[float, int]:
    low, high = span
    scale = max(high - low, 1e-6) / 255
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


def _set(tensor: Any, scale: float, zero: int) -> None:
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([zero], np.int64)
