"""Does a runtime on a device infer at all, and right? One tiny integer model, one right answer."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import NamedTuple

from device_worker import wire
from device_worker.runtimes import FORMATS
from device_worker.scratch import scratch
from orchestrator.devices.session import DeviceSession
from orchestrator.devices.worker import Worker

FOLDER = Path(__file__).parent
"""Holds smoke.onnx and smoke.tflite, made by `infra.smoke`."""

WEIGHTS = ((1, -2, 3), (2, 1, -1), (0, 3, 2), (-1, 1, 1))
"""[4, 3]"""
BIAS = (5, -7, 11)
SAMPLES = ((1, 2, 3, 4), (-4, 3, -2, 1), (0, 0, 0, 0), (7, -5, 6, -3))
"""[4, 4] int8; a product of them with the weights fits an int8."""


class Smoke(NamedTuple):
    """``ns``: of the last inference. ``got``: rows that came out, None where they were right."""

    backend: wire.Backend
    ns: int
    got: list[list[int]] | None


def expected() -> list[list[int]]:
    """Rows of SAMPLES @ WEIGHTS + BIAS."""
    return [
        [
            sum(x * row[j] for x, row in zip(sample, WEIGHTS, strict=True)) + BIAS[j]
            for j in range(len(BIAS))
        ]
        for sample in SAMPLES
    ]


def infer(session: DeviceSession, worker: Worker, runtime: str, *, timeout: float) -> Smoke:
    """Run the model of the runtime's format on the leased device. Raises what a job raises."""
    import numpy as np

    from orchestrator.results import npy

    model = FOLDER / f"smoke.{FORMATS[runtime]}"
    with scratch("smoke") as name:
        folder = Path(name)
        given = folder / "x.npy"
        np.save(given, np.array(SAMPLES, np.int8))
        tensor = wire.InputTensor("x", _blob(given), "int8", [len(SAMPLES), len(SAMPLES[0])])
        job = wire.Job(
            attempt=f"smoke-{secrets.token_hex(6)}",
            model=_blob(model),
            model_format=FORMATS[runtime],
            inputs=[tensor],
            runtime=wire.RuntimeSpec(runtime),
            samples=len(SAMPLES),
            warmup=1,
        )
        session.ensure(worker, {job.model.sha256: model, tensor.blob.sha256: given})
        result = session.run(worker, job, folder, timeout=timeout)
        output = npy.read((folder / "output-0").read_bytes(), "output-0")
        rows = output.astype(int).reshape(len(SAMPLES), -1).tolist()
        latency = npy.read((folder / "latency_ns").read_bytes(), "latency_ns", dtype="int64")
    return Smoke(result.backend, int(latency[-1]), None if rows == expected() else rows)


def _blob(path: Path) -> wire.Blob:
    data = path.read_bytes()
    return wire.Blob(hashlib.sha256(data).hexdigest(), len(data))
