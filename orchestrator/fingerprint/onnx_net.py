"""A small residual net in QDQ form: which of its operators a runtime really runs on integers.

ONNX Runtime's optimiser keeps other convolutions in float on x86 than on ARM for the same file. No
arithmetic is to blame for what then differs; only the plan shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from orchestrator.fingerprint.constants import limits, seed_of, stream
from orchestrator.fingerprint.describe import PLAN
from orchestrator.fingerprint.probe import Feed, Probe
from orchestrator.models.write_onnx import node, onnx_file

CHANNELS, SIDE = 8, 8
STEPS = {"x": 2.0**-6, "c0": 2.0**-4, "c1": 2.0**-3, "c2": 2.0**-2, "sum": 2.0**-2, "pool": 2.0**-3}


class _Net:
    """Collects nodes and constants; every tensor is quantised where it is made."""

    def __init__(self, dtype: str, zero: int) -> None:
        self.dtype, self.zero = dtype, zero
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {"z": np.array(zero, dtype)}

    def quantised(self, name: str, source: str, relu: bool = False) -> str:
        """``source`` through a Q/DQ pair of its own; returns the float tensor behind it."""
        zero = limits(self.dtype)[0] if relu else self.zero
        self.constants |= {
            f"{name}_s": np.float32(STEPS[name]),
            f"{name}_z": np.array(zero, self.dtype),
        }
        step = [f"{name}_s", f"{name}_z"]
        self.nodes += [
            node("QuantizeLinear", [source, *step], f"{name}_q"),
            node("DequantizeLinear", [f"{name}_q", *step], f"{name}_f"),
        ]
        return f"{name}_f"

    def convolved(self, name: str, source: str, kernel: int, step_in: str) -> str:
        draw = stream(f"net {name}")
        shape = (CHANNELS, CHANNELS, kernel, kernel)
        scale = np.asarray(2.0**-8 * draw.uniform(0.6, 1.6, CHANNELS), np.float32)
        self.constants |= {
            f"{name}_w": draw.randint(-63, 64, shape).astype(np.int8),
            f"{name}_ws": scale,
            f"{name}_wz": np.zeros(CHANNELS, np.int8),
            f"{name}_b": draw.randint(-200, 201, CHANNELS).astype(np.int32),
            f"{name}_bs": np.asarray(scale * np.float32(STEPS[step_in]), np.float32),
            f"{name}_bz": np.zeros(CHANNELS, np.int32),
        }
        for part in ("w", "b"):
            ends = [f"{name}_{part}", f"{name}_{part}s", f"{name}_{part}z"]
            self.nodes.append(node("DequantizeLinear", ends, f"{name}_{part}f", axis=0))
        pads = [kernel // 2] * 4
        ends = [source, f"{name}_wf", f"{name}_bf"]
        self.nodes.append(node("Conv", ends, f"{name}_y", pads=pads, kernel_shape=[kernel] * 2))
        return f"{name}_y"

    def then(self, kind: str, source: list[str], name: str) -> str:
        self.nodes.append(node(kind, source, name))
        return name


def net(dtype: str) -> Probe:
    """conv, relu, (conv, relu, conv) + shortcut, relu, average: the block of a ResNet."""
    made = _Net(dtype, 128 if dtype == "uint8" else 0)
    x = made.quantised("x", "real")
    stem = made.convolved("c0", x, 3, "x")
    stem = made.quantised("c0", made.then("Relu", [stem], "c0_r"), relu=True)
    left = made.convolved("c1", stem, 3, "c0")
    left = made.quantised("c1", made.then("Relu", [left], "c1_r"), relu=True)
    left = made.quantised("c2", made.convolved("c2", left, 3, "c1"))
    total = made.then("Add", [stem, left], "sum_y")
    total = made.quantised("sum", made.then("Relu", [total], "sum_r"), relu=True)
    made.quantised("pool", made.then("GlobalAveragePool", [total], "pool_y"))
    shape = (CHANNELS, SIDE, SIDE)
    name = f"onnx.net.{dtype}"
    feed = Feed("random", (4, 1, *shape), "float32", -128, 127, seed_of(name), STEPS["x"])
    ends = {"real": ("float32", (1, *shape))}
    model = onnx_file(made.nodes, ends, ("pool_f", "float32"), made.constants)
    return Probe(name, f"{PLAN}a residual net {dtype}", "onnx", model, (feed,), graph=True)


def probes() -> Iterator[Probe]:
    yield net("int8")
    yield net("uint8")
