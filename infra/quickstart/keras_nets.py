"""A net in Keras: built, trained, and its weights read out with batch normalisation folded in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from infra.quickstart.digits import SEED, Ints, with_shifts
from infra.quickstart.nets import Floats, Layer, Net, Step


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
