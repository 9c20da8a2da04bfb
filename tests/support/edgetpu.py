"""Tiny models in the two forms a Coral lab has them: for the CPU, and compiled for the Edge TPU.

Written with the flatbuffer schema alone. The compiled form is only a form: its program is empty,
and the stand-in of `infra.standins` computes something else than the source does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.standins.build import BuildError, build
from orchestrator.models.write_tflite import Operator, Tensor, tflite_file

SHAPE = [1, 8]
SCALE, ZERO = 0.5, 3
PROGRAM = b"DWN1" * 8


def library() -> Path:
    """The stand-in for libedgetpu, built for this machine."""
    try:
        return build()
    except BuildError as error:
        pytest.skip(str(error))


def codes(samples: int) -> NDArray[np.int8]:
    """Inputs [samples, 8] of these models."""
    return np.random.default_rng(7).integers(-128, 128, (samples, SHAPE[1]), np.int8)


def compiled(path: Path, dequantised: bool = True, scale: float = SCALE) -> Path:
    """``edgetpu-custom-op`` and, if ``dequantised``, a DEQUANTIZE for the CPU behind it."""
    steps = [("edgetpu-custom-op", PROGRAM)] + ([("DEQUANTIZE", b"")] if dequantised else [])
    return _write(path, steps, scale)


def source(path: Path, dequantised: bool = True) -> Path:
    """Takes and gives what `compiled` does, with built-in operators only."""
    return _write(path, [("RELU", b"")] + ([("DEQUANTIZE", b"")] if dequantised else []), SCALE)


def custom(path: Path, kind: str) -> Path:
    """A model with one operator that no runtime knows."""
    return _write(path, [(kind, b"")], SCALE)


def _write(path: Path, steps: list[tuple[str, bytes]], scale: float) -> Path:
    names = ["in", *(f"between{n}" for n in range(len(steps) - 1)), "out"]
    kinds = ["", *(kind for kind, _ in steps)]
    tensors = [
        _tensor(name, scale, kind == "DEQUANTIZE") for name, kind in zip(names, kinds, strict=True)
    ]
    operators = [
        Operator(kind, [name], output, None, 2 if kind == "DEQUANTIZE" else 1, program)
        for (kind, program), name, output in zip(steps, names, names[1:], strict=False)
    ]
    path.write_bytes(tflite_file(tensors, operators, ["in"], "out"))
    return path


def _tensor(name: str, scale: float, real: bool) -> Tensor:
    shape = tuple(SHAPE)
    return Tensor(name, shape, "float32") if real else Tensor(name, shape, "int8", scale, ZERO)
