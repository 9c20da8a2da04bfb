"""Layers against the FP32 parent's, beside ONNX Runtime's `qdq_loss_debug`: same model and data.

Both run in this process with the threads that ONNX Runtime takes by itself. Theirs keeps every
activation, then takes two SQNR of each (before and behind Q/DQ, FP32 and INT8), unoptimised. Ours
parses the files in limited children, runs what the optimiser makes of the file, checks its answer
against the ordinary one, and takes all figures of docs/guides/metrics.md, "Layer". "accumulated"
is that, as theirs; "both errors" runs each operator alone on golden inputs as well, which theirs
has no counterpart of. *SQNR checked*: in theirs' arithmetic, which is ours with optimisation off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.diagnosis.taps import Taps, tap
from orchestrator.diagnosis.taps_onnx import OnnxSubject
from orchestrator.models.graph import Array
from tests.benchmarks.kit import Table, interleave, ratios, scaled
from tests.support.qdq_debug import Bare, sqnr
from tests.support.tiny import MODELS, QUICKSTART

TURNS = 7
SAMPLES = (50, 400)
MEMORY = (50, 500)
TOLERANCE_DB = 1e-4
REAL = os.environ.get("ASSAY_REALMODELS")
Net = tuple[str, bytes, bytes, NDArray[np.float32]]
"""Name, file, parent, samples [n, 1, ...]."""


def run() -> list[Table]:
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        nets = [digits()] + ([resnet8(Path(name))] if REAL else [])
        times = [_times(net, count) for net in nets for count in SAMPLES]
        return [*times, *(_memory(net, Path(name)) for net in nets)]


def _times(net: Net, count: int) -> Table:
    name, file, parent, samples = net
    given = samples[:count]
    table = Table(f"{name}, {count} samples, every layer against FP32", "ms")
    taken = interleave(
        {
            "qdq_loss_debug": lambda: sqnr(file, parent, given),
            "taps, accumulated": lambda: tap(_Accumulated(file, parent, Bare()), [given], [given]),
            "taps, both errors": lambda: ours(file, parent, given),
        },
        TURNS,
        warm=1,
    )
    for label, values in taken.items():
        table.add(label, scaled(values, 1e3))
    for label in ("taps, accumulated", "taps, both errors"):
        table.add(
            f"{label} / qdq_loss_debug (ratio)", ratios(taken[label], taken["qdq_loss_debug"])
        )
    theirs = sqnr(file, parent, given)
    same = _apart(theirs, ours(file, parent, given, Bare(optimise=False)))
    if same > TOLERANCE_DB:
        raise AssertionError(f"SQNR of {name}: {same} dB apart in one arithmetic")
    kernels = _apart(theirs, ours(file, parent, given))
    table.note(
        f"SQNR checked: {len(theirs)} tensors, at most {same:.2g} dB apart in one arithmetic; "
        f"the integer kernels that really run: at most {kernels:.2g} dB from it"
    )
    return table


class _Accumulated(OnnxSubject):
    """Without what operators make of golden inputs."""

    def _alone(self, sites: Any, real: Any) -> dict[str, Array]:
        return {}

    _meant = _alone


def ours(file: bytes, parent: bytes, samples: Array, side: Bare | None = None) -> Taps:
    return tap(OnnxSubject(file, parent, side or Bare()), [samples], [samples])


def _apart(theirs: dict[str, float], found: Taps) -> float:
    """Largest distance, dB. Where nothing is lost they have a number above 300 for infinity."""
    mine = {each.twin: each.accumulated.sqnr_db or 0.0 for each in found.taps}
    both = [(decibels, mine[tensor]) for tensor, decibels in theirs.items() if tensor in mine]
    if len(both) < len(theirs) - 1:  # a Reshape that the optimiser dropped has no tensor of its own
        raise AssertionError(f"{len(theirs)} tensors in theirs, {len(both)} of them in ours")
    return max(abs(a - b) for a, b in both if not (a > 300 and np.isinf(b)))


def _memory(net: Net, folder: Path) -> Table:
    """Of a process of its own for each; what imports alone take is a row."""
    name, file, parent, samples = net
    (folder / "file.onnx").write_bytes(file)
    (folder / "parent.onnx").write_bytes(parent)
    table = Table(f"{name}, peak memory of a process", "MB")
    for count in MEMORY:
        # As many as are asked for, of as many as there are.
        np.save(folder / "samples.npy", np.resize(samples, (count, *samples.shape[1:])))
        for arm in ("imports", "qdq_loss_debug", "taps"):
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.taps", arm, str(folder)],
                check=True,
                capture_output=True,
                text=True,
            )
            peak: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            table.add(f"{arm}, {count} samples", [peak["megabytes"]])
    return table


def _alone(arm: str, folder: Path) -> None:
    file, parent = ((folder / f"{name}.onnx").read_bytes() for name in ("file", "parent"))
    samples = np.load(folder / "samples.npy")
    if arm == "taps":
        ours(file, parent, samples)
    elif arm == "qdq_loss_debug":
        sqnr(file, parent, samples)
    # What getrusage says began with the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = next(x for x in status.splitlines() if x.startswith("VmHWM"))
    print(json.dumps({"megabytes": int(peak.split()[1]) / 1024}))


def digits() -> Net:
    with np.load(QUICKSTART / "digits_32x32.npz") as arrays:
        x = arrays["x"].astype(np.float32).reshape(-1, 1, 1, 32, 32)
    file, parent = ((MODELS / f"digits_ds.{name}.onnx").read_bytes() for name in ("u8s8", "fp32"))
    return "digits_ds", file, parent, x


def resnet8(folder: Path) -> Net:
    """The FP32 net of the real models, quantised here: the names that both need are its own."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    source = Path(REAL or "") / "cifar10_resnet8"
    with np.load(source / "eval_images.npz") as arrays:
        images = arrays["images"].astype(np.float32).transpose(0, 3, 1, 2)[:, None]
    parent, target = source / "resnet8_fp32_nchw.onnx", folder / "resnet8.onnx"
    reader = _Reader(images[:50])
    quantize_static(parent, target, reader, quant_format=QuantFormat.QDQ)
    return "resnet8", target.read_bytes(), parent.read_bytes(), images


class _Reader:
    """The images as the quantiser reads them for calibration."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._left, None)
        return None if image is None else {"input_1": image}


if __name__ == "__main__":
    _alone(sys.argv[1], Path(sys.argv[2]))
