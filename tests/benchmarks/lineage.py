"""What the lineage of a net the size of MobileNet costs, beside the least that any answer costs.

The least: one division, rounding and comparison per weight, on arrays that are in memory already
and known to belong together.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from orchestrator.models.lineage import compare
from tests.benchmarks.kit import Table, interleave, scaled
from tests.support.flatfile import Flat
from tests.support.tiny import MODELS
from tests.unit.models.arrays import Array, quantised

TURNS = 9
WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
"""Channels of MobileNet v1 1.0, layer after layer."""
_IMPORTS = "import onnx, numpy; from ai_edge_litert import schema_py_generated"


def run() -> list[Table]:
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder, weights = Path(name), mobilenet()
        other = {k: v[::-1].copy() for k, v in weights.items()}
        int8, fp32 = write(folder / "int8.tflite", weights, True), folder / "fp32.tflite"
        write(fp32, weights, False)
        false = write(folder / "false.tflite", other, False)
        pairs = [(*quantised(w, 0)[:2], w) for w in weights.values()]
        taken = interleave(
            {
                "python, with the parsers' imports": imports,
                "a bare comparison in memory": lambda: [bare(*pair) for pair in pairs],
                "digits_ds, true": of(MODELS / "digits_ds.int8.tflite", "digits_ds.fp32.onnx"),
                "true pair": of(int8, fp32),
                "false pair": of(int8, false),
            },
            TURNS,
            warm=1,
        )
    count = sum(w.size for w in weights.values())
    table = Table(f"lineage of a file, in its limited child; {count:,} weights", "ms")
    for label, values in taken.items():
        table.add(label, scaled(values, 1e3))
    return [table]


def of(int8: Path, fp32: Path | str) -> Callable[[], object]:
    return lambda: compare(int8, MODELS / fp32)


def imports() -> None:
    subprocess.run([sys.executable, "-c", _IMPORTS], check=True)


def bare(codes: Array, scale: Array, values: Array) -> bool:
    steps = values / scale.reshape(-1, *[1] * (values.ndim - 1))
    return bool((np.abs(steps - codes) <= 0.501).all())


def mobilenet() -> dict[str, Array]:
    """Float32 weights in the layouts of TFLite."""
    random, made = np.random.default_rng(0), {}
    for i, (before, after) in enumerate(zip((8, *WIDTHS), WIDTHS, strict=False)):
        made[f"depthwise{i}"] = random.normal(0, 0.1, (1, 3, 3, before)).astype(np.float32)
        made[f"pointwise{i}"] = random.normal(0, 0.1, (after, 1, 1, before)).astype(np.float32)
    return made | {"classes": random.normal(0, 0.1, (1001, 1024)).astype(np.float32)}


def write(path: Path, weights: dict[str, Array], int8: bool) -> Path:
    """A file of constants: the comparison reads no operator but what may be folded."""
    flat = Flat()
    for name, values in weights.items():
        if int8:
            codes, scale, _ = quantised(values, 0)
            flat.constant(name, codes, scale=scale)
        else:
            flat.constant(name, values)
    x = flat.tensor("x", [1])
    return flat.write(path, [x], [x])


if __name__ == "__main__":
    print(*(table.text() for table in run()), sep="\n")
