"""The quickstart's two nets as plain data: what the trainer builds and the exporters read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

MODEL_INPUT: Final = "image"
MODEL_OUTPUT: Final = "logits"


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


@dataclass(frozen=True)
class Step:
    """A layer with its final weights (HWIO for `conv`, HWC for `depthwise`, IO for `dense`)."""

    layer: Layer
    weight: Floats
    bias: Floats


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
