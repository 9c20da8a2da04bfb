"""Train the quickstart's two nets on real handwritten digits and write every file they come as.

Writes, under the folder given by ``--out``: the FP32 and INT8 models, the held-out test images, the
index split, and a record of the tools used. Nothing else is read or written; measuring and the
model card are `measure.py`. Runs in its own environment (see README.md), never in the project's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

# Read by the libraries when they are imported, so set first. oneDNN picks kernels by CPU and
# thread count; without it the weights depend on less.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from sklearn.datasets import load_digits

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SEED: Final = 20_240_917
N_TEST: Final = 1000
N_CALIBRATION: Final = 100
MODEL_INPUT: Final = "image"
MODEL_OUTPUT: Final = "logits"
TOOLS: Final = (
    "tensorflow-cpu",
    "keras",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "numpy",
    "scikit-learn",
    "scipy",
)


# --- the nets, as data ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One step of a net: what to build, and how wide."""

    kind: str  # conv | depthwise | pool | mean | flatten | dense
    width: int = 0
    kernel: int = 3
    stride: int = 1
    activation: str = "none"  # none | relu | relu6
    normalise: bool = False  # batch normalisation, folded into the weights before export


@dataclass(frozen=True)
class Net:
    """A net, its input size, and how long and on how many shifted copies it is trained."""

    name: str
    side: int
    layers: tuple[Layer, ...]
    epochs: int
    shifted_copies: int
    max_shift: int


def separable(width: int, stride: int) -> tuple[Layer, Layer]:
    """A depthwise 3x3 followed by a pointwise 1x1, each normalised and cut off at 6."""
    return (
        Layer("depthwise", stride=stride, activation="relu6", normalise=True),
        Layer("conv", width, kernel=1, activation="relu6", normalise=True),
    )


NETS: Final = (
    Net(
        "digits_cnn",
        side=8,
        layers=(
            Layer("conv", 16, activation="relu"),
            Layer("conv", 32, activation="relu"),
            Layer("pool"),
            Layer("flatten"),
            Layer("dense", 32, activation="relu"),
            Layer("dense", 10),
        ),
        epochs=40,
        shifted_copies=2,
        max_shift=1,
    ),
    Net(
        "digits_ds",
        side=32,
        layers=(
            Layer("conv", 16, stride=2, activation="relu6", normalise=True),
            *separable(32, 1),
            *separable(64, 2),
            *separable(64, 1),
            *separable(96, 2),
            *separable(96, 1),
            Layer("mean"),
            Layer("dense", 10),
        ),
        epochs=30,
        shifted_copies=2,
        max_shift=3,
    ),
)


# --- the data -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Indices into scikit-learn's digits; no index is in two parts."""

    train: Ints
    calibration: Ints
    test: Ints


def split_indices(count: int) -> Split:
    """Shuffle once with a fixed seed, then cut: test first, calibration next, the rest trains."""
    order = np.random.default_rng(SEED).permutation(count)
    test, calibration, train = np.split(order, [N_TEST, N_TEST + N_CALIBRATION])
    return Split(*(np.sort(part).astype(np.int64) for part in (train, calibration, test)))


def as_input(images: npt.NDArray[np.float64], side: int) -> Floats:
    """Grey levels 0..16 to float32 NHWC in 0..1, each pixel repeated to fill the larger side.

    Every value is k/16, so exact on every CPU, and repeated pixels compress well.
    """
    factor = side // images.shape[1]
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    return (large[..., None] / 16).astype(np.float32)


def with_shifts(x: Floats, y: Ints, net: Net) -> tuple[Floats, Ints]:
    """The images and copies of each moved a few pixels, empty where nothing moved in."""
    rng = np.random.default_rng(SEED)
    margin = net.max_shift
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    copies = [x]
    for _ in range(net.shifted_copies):
        corners = rng.integers(0, 2 * margin + 1, size=(len(x), 2))
        copies.append(
            np.stack(
                [
                    image[r : r + net.side, c : c + net.side]
                    for image, (r, c) in zip(padded, corners, strict=True)
                ]
            )
        )
    return np.concatenate(copies), np.tile(y, len(copies))


# --- training -------------------------------------------------------------------------------------


def keras_layers(index: int, layer: Layer) -> Iterator[Any]:
    """The Keras layers that train one step of the net; weights are found again by name."""
    make = tf.keras.layers
    name = f"step{index}"
    if layer.kind == "conv":
        yield make.Conv2D(
            layer.width,
            layer.kernel,
            strides=layer.stride,
            padding="same",
            use_bias=not layer.normalise,
            name=name,
        )
    elif layer.kind == "depthwise":
        yield make.DepthwiseConv2D(
            layer.kernel,
            strides=layer.stride,
            padding="same",
            use_bias=not layer.normalise,
            name=name,
        )
    elif layer.kind == "dense":
        yield make.Dense(layer.width, name=name)
    else:
        plain = {
            "pool": make.MaxPool2D,
            "flatten": make.Flatten,
            "mean": make.GlobalAveragePooling2D,
        }
        yield plain[layer.kind]()
    if layer.normalise:
        yield make.BatchNormalization(momentum=0.9, name=f"{name}_norm")
    if layer.activation != "none":
        yield make.ReLU(6.0 if layer.activation == "relu6" else None)


def train(net: Net, x: Floats, y: Ints) -> Any:
    """Plain supervised training: Adam, cosine decay, cross-entropy. Returns the Keras model."""
    tf.keras.utils.set_random_seed(SEED % 2**31)
    x, y = with_shifts(x, y, net)
    steps = [made for i, layer in enumerate(net.layers) for made in keras_layers(i, layer)]
    model = tf.keras.Sequential([tf.keras.Input((net.side, net.side, 1)), *steps])
    batch = 32
    decay = tf.keras.optimizers.schedules.CosineDecay(2e-3, net.epochs * -(-len(x) // batch))
    model.compile(
        tf.keras.optimizers.Adam(decay),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(x, y, epochs=net.epochs, batch_size=batch, verbose=0)
    return model


# --- the trained net, ready to export -------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A layer with its final weights (HWIO for `conv`, HWC for `depthwise`, IO for `dense`)."""

    layer: Layer
    weight: Floats
    bias: Floats


def trained_steps(net: Net, model: Any) -> tuple[Step, ...]:
    """Read the weights out of Keras, with batch normalisation folded in."""
    empty = np.zeros(0, np.float32)
    steps = []
    for i, layer in enumerate(net.layers):
        if layer.kind not in ("conv", "depthwise", "dense"):
            steps.append(Step(layer, empty, empty))
            continue
        values = [np.asarray(v, np.float64) for v in model.get_layer(f"step{i}").get_weights()]
        weight = values[0][..., 0] if layer.kind == "depthwise" else values[0]
        bias = values[1] if len(values) > 1 else np.zeros(weight.shape[-1])
        if layer.normalise:
            norm = model.get_layer(f"step{i}_norm")
            gamma, beta, mean, variance = (np.asarray(v, np.float64) for v in norm.get_weights())
            gain = gamma / np.sqrt(variance + norm.epsilon)
            weight, bias = weight * gain, beta + (bias - mean) * gain
        steps.append(Step(layer, weight.astype(np.float32), bias.astype(np.float32)))
    return tuple(steps)


# --- ONNX -----------------------------------------------------------------------------------------


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


# --- TFLite ---------------------------------------------------------------------------------------


def tf_forward(steps: tuple[Step, ...], x: Any) -> Any:
    """The same net in TensorFlow operations, NHWC."""
    for step in steps:
        layer = step.layer
        strides = [1, layer.stride, layer.stride, 1]
        if layer.kind == "conv":
            x = tf.nn.conv2d(x, step.weight, strides, "SAME") + step.bias
        elif layer.kind == "depthwise":
            weight = step.weight[..., None]
            x = tf.nn.depthwise_conv2d(x, weight, strides, "SAME") + step.bias
        elif layer.kind == "pool":
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        elif layer.kind == "mean":
            x = tf.reduce_mean(x, axis=[1, 2])
        elif layer.kind == "flatten":
            x = tf.reshape(x, [1, -1])
        else:
            x = tf.matmul(x, step.weight) + step.bias
        if layer.activation == "relu":
            x = tf.nn.relu(x)
        elif layer.activation == "relu6":
            x = tf.nn.relu6(x)
    return tf.identity(x, name=MODEL_OUTPUT)


def write_tflite(net: Net, steps: tuple[Step, ...], calibration: Floats, models: Path) -> None:
    """FP32, and full-integer INT8 with int8 input and output (per channel, batch 1)."""
    shape = [1, net.side, net.side, 1]
    module = tf.Module()
    module.forward = tf.function(
        lambda x: {MODEL_OUTPUT: tf_forward(steps, x)},
        input_signature=[tf.TensorSpec(shape, tf.float32, name=MODEL_INPUT)],
    )
    for tag in ("fp32", "int8"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [module.forward.get_concrete_function()], module
        )
        if tag == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.int8
            converter.inference_output_type = tf.int8
        (models / f"{net.name}.{tag}.tflite").write_bytes(converter.convert())


# --- checks and records ---------------------------------------------------------------------------


def assert_same_fp32(net: Net, models: Path, x: Floats, keras_model: Any) -> float:
    """Keras, ONNX and TFLite must agree to 1e-3 on every logit; returns the largest difference."""
    session = onnxruntime.InferenceSession(models / f"{net.name}.fp32.onnx")
    from_onnx = session.run(None, {MODEL_INPUT: x.transpose(0, 3, 1, 2)})[0]
    interpreter = Interpreter(model_path=str(models / f"{net.name}.fp32.tflite"))
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    from_tflite = []
    for image in x:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        from_tflite.append(interpreter.get_tensor(target)[0])
    from_keras = keras_model.predict(x, verbose=0)
    worst = max(
        float(np.abs(from_onnx - np.stack(from_tflite)).max()),
        float(np.abs(from_onnx - from_keras).max()),
    )
    if not worst < 1e-3:
        raise SystemExit(f"{net.name}: FP32 exports differ by {worst}")
    return worst


def cpu_name() -> str:
    """The CPU's own name for itself, where Linux tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """JSON with one line per key: long lists of numbers stay readable and diffable."""
    lines = [f"  {json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_sums(out: Path) -> None:
    """SHA256SUMS over everything this script wrote, in the format `sha256sum -c` reads."""
    names = sorted(
        path.relative_to(out).as_posix()
        for pattern in ("models/*", "*.npz", "SPLIT.json", "BUILD.json")
        for path in out.glob(pattern)
    )
    lines = [f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (out / "SHA256SUMS").write_text("".join(lines))


def build(out: Path) -> None:
    """Everything: data, both nets, all their files, the records."""
    models = out / "models"
    models.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    split = split_indices(len(labels))
    fp32_gap, parameters = {}, {}
    for net in NETS:
        x = as_input(digits.images, net.side)
        np.savez_compressed(
            out / f"digits_{net.side}x{net.side}.npz",
            x=x[split.test],
            y=labels[split.test],
            id=split.test,
        )
        model = train(net, x[split.train], labels[split.train])
        steps = trained_steps(net, model)
        parameters[net.name] = sum(step.weight.size + step.bias.size for step in steps)
        write_onnx(net, steps, x[split.calibration], models)
        write_tflite(net, steps, x[split.calibration], models)
        fp32_gap[net.name] = assert_same_fp32(net, models, x[split.calibration], model)
    write_json(
        out / "SPLIT.json",
        {
            "source": "sklearn.datasets.load_digits",
            "count": len(labels),
            "seed": SEED,
            "train": split.train.tolist(),
            "calibration": split.calibration.tolist(),
            "test": split.test.tolist(),
        },
    )
    write_json(
        out / "BUILD.json",
        {
            "python": platform.python_version(),
            "zlib": zlib.ZLIB_RUNTIME_VERSION,
            "cpu": cpu_name(),
            "tools": {name: version(name) for name in TOOLS},
            "parameters": parameters,
            "fp32_largest_difference": fp32_gap,
        },
    )
    write_sums(out)


def main() -> None:
    """Parse the one option, fix every source of chance, build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    out = parser.parse_args().out
    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    build(out)


if __name__ == "__main__":
    main()
