"""A trained net as ONNX: FP32, and the INT8 variants ONNX Runtime's quantiser makes of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from infra.quickstart.nets import MODEL_INPUT, MODEL_OUTPUT, Floats, Net, Step


class OnnxGraph:
    """Collects nodes and weights of a chain in which each node feeds the next."""

    def __init__(self) -> None:
        self.tensor = MODEL_INPUT
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Store a weight; returns its name."""
        if name not in (known.name for known in self.weights):
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def then(self, op: str, *constants: str, **attributes: Any) -> None:
        """Append one node that reads the last tensor and the given weights."""
        name = f"{len(self.nodes):02d}_{op.lower()}"
        inputs = [self.tensor, *constants]
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.tensor = name

    def finish(self, name: str, input_shape: list[str | int]) -> Any:
        """Close the chain: its last tensor becomes the model's output."""
        self.nodes[-1].output[0] = MODEL_OUTPUT
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(MODEL_INPUT, TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info(MODEL_OUTPUT, TensorProto.FLOAT, ["N", 10])],
            self.weights,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
            producer_name="assay quickstart",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def same_padding(side: int, kernel: int, stride: int) -> list[int]:
    """TensorFlow's SAME for a square image, in ONNX's order (top, left, bottom, right)."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return [total // 2, total // 2, total - total // 2, total - total // 2]


def to_onnx(net: Net, steps: tuple[Step, ...]) -> Any:
    """The same net in ONNX, NCHW, any batch size."""
    graph = OnnxGraph()
    side, channels, flattened = net.side, 1, False
    for i, step in enumerate(steps):
        layer = step.layer
        if layer.kind in ("conv", "depthwise"):
            depthwise = layer.kind == "depthwise"
            weight = step.weight[:, :, None, :] if depthwise else step.weight  # HWIO
            graph.then(
                "Conv",
                graph.constant(f"w{i}", weight.transpose(3, 2, 0, 1)),
                graph.constant(f"b{i}", step.bias),
                kernel_shape=[layer.kernel] * 2,
                strides=[layer.stride] * 2,
                pads=same_padding(side, layer.kernel, layer.stride),
                group=channels if depthwise else 1,
            )
            side, channels = -(-side // layer.stride), len(step.bias)
        elif layer.kind == "pool":
            graph.then("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
            side //= 2
        elif layer.kind == "mean":
            graph.then("GlobalAveragePool")
            graph.then("Flatten", axis=1)
        elif layer.kind == "flatten":
            graph.then("Flatten", axis=1)
            flattened = True
        else:
            weight = step.weight
            if flattened:  # rows were counted in HWC order, ONNX counts CHW
                weight = weight.reshape(side, side, channels, -1).transpose(2, 0, 1, 3)
                weight = weight.reshape(step.weight.shape)
                flattened = False
            graph.then("Gemm", graph.constant(f"w{i}", weight), graph.constant(f"b{i}", step.bias))
        if layer.activation == "relu":
            graph.then("Relu")
        elif layer.activation == "relu6":
            zero = graph.constant("zero", np.array(0, np.float32))
            graph.then("Clip", zero, graph.constant("six", np.array(6, np.float32)))
    return graph.finish(net.name, ["N", 1, net.side, net.side])


class Samples(CalibrationDataReader):  # type: ignore[misc,unused-ignore]
    """Feeds calibration images to the quantiser one at a time."""

    def __init__(self, x: Floats) -> None:
        self._batches = iter([{MODEL_INPUT: image[None].transpose(0, 3, 1, 2)} for image in x])

    def get_next(self) -> dict[str, Floats] | None:
        """The next image, or None at the end."""
        return next(self._batches, None)


ONNX_VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "u8s8": {"weight_type": QuantType.QInt8, "per_channel": True},
    "u8s8_rr": {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True},
    "u8u8": {"weight_type": QuantType.QUInt8, "extra_options": {"WeightSymmetric": False}},
}


def write_onnx(net: Net, steps: tuple[Step, ...], calibration: Floats, models: Path) -> None:
    """FP32, and each INT8 variant quantised from it (min-max calibration, QDQ, float I/O)."""
    parent = models / f"{net.name}.fp32.onnx"
    onnx.save(to_onnx(net, steps), parent)
    with tempfile.TemporaryDirectory() as scratch:
        inferred = Path(scratch) / "parent.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(onnx.load(parent)), inferred)
        for tag, options in ONNX_VARIANTS.items():
            quantize_static(
                inferred,
                models / f"{net.name}.{tag}.onnx",
                Samples(calibration),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                **options,
            )
