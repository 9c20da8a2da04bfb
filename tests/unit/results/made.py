"""An honest attempt, to be spoilt: two outputs of three samples, and what was asked for."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_worker import wire
from device_worker.outputs import sample_digest
from orchestrator.results.finished import Finished

SAMPLES = 3
ATTEMPT = "a" * 32
OUTPUTS: tuple[NDArray[Any], ...] = (
    np.arange(6, dtype=np.int8).reshape(SAMPLES, 2),
    np.linspace(0, 1, 12, dtype=np.float32).reshape(SAMPLES, 2, 2),
)


def npy(array: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def blob(data: bytes) -> wire.Blob:
    return wire.Blob(hashlib.sha256(data).hexdigest(), len(data))


def job(**changes: Any) -> wire.Job:
    tensor = wire.InputTensor("x", blob(b"x"), "float32", [SAMPLES, 4])
    fields: dict[str, Any] = {
        "attempt": ATTEMPT,
        "model": blob(b"model"),
        "model_format": "onnx",
        "inputs": [tensor],
        "runtime": wire.RuntimeSpec("onnxruntime"),
        "samples": SAMPLES,
        "repeat": 2,
    }
    return wire.Job(**{**fields, **changes})


def files(outputs: tuple[NDArray[Any], ...] = OUTPUTS, **changes: bytes) -> dict[str, bytes]:
    rows = [sample_digest([o[i] for o in outputs]) for i in range(len(outputs[0]))]
    hashes = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)
    reading = {"t_s": 0.0, "values": {"temp/cpu": 41.5, "freq/cpu0": None}}
    found = {
        **{f"output-{i}": npy(output) for i, output in enumerate(outputs)},
        "latency_ns": npy(np.full(SAMPLES, 1000, np.int64)),
        "sample_hashes": npy(hashes),
        "telemetry": (json.dumps(reading) + "\n").encode() * 2,
    }
    return {**found, **changes}


def device_file(role: str, data: bytes) -> wire.DeviceFile:
    return wire.DeviceFile(f"/root/out/{ATTEMPT}/{role}.npy", blob(data))


def result(found: dict[str, bytes], outputs: tuple[NDArray[Any], ...] = OUTPUTS) -> wire.JobResult:
    """What a worker says of ``found``, the files of ``outputs``."""
    tensors = [
        wire.OutputTensor(
            f"y{i}",
            device_file(f"output_{i}", b"").path,
            blob(found[f"output-{i}"]),
            str(output.dtype),
            list(output.shape),
        )
        for i, output in enumerate(outputs)
    ]
    roles = ("latency_ns", "sample_hashes", "telemetry")
    return wire.JobResult(
        attempt=ATTEMPT,
        outputs=tensors,
        files={role: device_file(role, found[role]) for role in roles},
        backend=wire.Backend("cpu", {"CPUExecutionProvider": 3}),
        repeats=wire.Repeats(2, SAMPLES),
        telemetry=wire.Telemetry(2, {"temp/cpu": 41.5}, {"temp/cpu": 41.5}, {"temp/cpu": 41.5}),
        environment={"machine": "x86_64", "board": None},
        model_sha256=job().model.sha256,
        input_sha256=[t.blob.sha256 for t in job().inputs],
        load_ns=1_000,
        run_ns=100_000,
        started_unix=1.0,
        ended_unix=2.0,
    )


def finished(**changes: Any) -> Finished:
    found = files()
    data = {**wire.dump(result(found)), "clock_offset_s": 0.1, "recovered": None, "bundle": None}
    fields: dict[str, Any] = {
        "attempt": ATTEMPT,
        "device": "d",
        "token": 3,
        "started_unix": 1.0,
        "ended_unix": 2.0,
        "result": data,
        "files": found,
        "hub": "here",
    }
    return Finished(**{**fields, **changes})
