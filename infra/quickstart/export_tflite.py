"""A trained net as TFLite: FP32, and full-integer INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from infra.quickstart.nets import MODEL_INPUT, MODEL_OUTPUT, Floats, Net, Step


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
