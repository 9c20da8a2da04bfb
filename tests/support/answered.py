"""A queued run whose devices answered at once with outputs of the caller's choice.

Everything goes through the store's own methods; only no device ran anything.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.queue.states import AttemptState
from orchestrator.run import enqueue, plan
from orchestrator.runs.snapshot import load_run
from orchestrator.staging.stage import here
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from orchestrator.store.records import AttemptRecord, BaselineKey, Blob
from tests.support.tiny import MODELS, Tiny

CLASSES = 10
Codes = NDArray[np.int8]


def tiny_of(folder: Path, devices: Iterable[str], samples: int, seed: int = 0) -> Tiny:
    """One INT8 TFLite file with integer outputs, ``samples`` random inputs and labels."""
    tiny, rng = Tiny(folder), np.random.default_rng(seed)
    tiny.devices = [tiny.device(name) for name in devices]
    model = tiny.matrix["models"][0]
    model["fp32"] = {"path": str(MODELS / "digits_cnn.fp32.tflite")}
    model["files"] = [{"name": "int8", "path": str(MODELS / "digits_cnn.int8.tflite")}]
    tiny.matrix["runtimes"] = [{"name": "litert", "runtime": "litert"}]
    folder.mkdir(parents=True)
    x = rng.random((samples, 8, 8, 1), dtype=np.float32)
    np.savez(folder / "x.npz", x=x, y=rng.integers(0, CLASSES, samples))
    tiny.inputs.update(path=str(folder / "x.npz"))
    del tiny.inputs["limit"]
    return tiny


def queued(store: Store, tiny: Tiny, fp32: Codes) -> str:
    """The run's ID; its FP32 baseline is ``fp32`` [samples, CLASSES] as floats."""
    run = enqueue(store, plan(tiny.write(), []), here)
    staging = load_run(store.frozen(run)).staging
    tensor = staging.tensors["cnn/digits"].sha256
    environment = store.environment({"answered": True})
    key = BaselineKey(staging.models["cnn"].sha256, [tensor], environment)
    outputs = [put(store, fp32.astype(np.float32)).sha256]
    store.baseline_put(key, {"attempt": "fp32", "outputs": outputs})
    return run


def answer(
    store: Store,
    run: str,
    device: str,
    outputs: Codes,
    hashes: NDArray[np.uint8] | None = None,
    latency_ns: NDArray[np.int64] | None = None,
    inputs: str = "0" * 64,
) -> str:
    """Store an attempt and return its ID.

    ``outputs`` [samples, CLASSES]; ``hashes`` spares hashing them again; ``inputs``: sha256 of the
    input tensor, as the device would have told it.
    """
    lease = store.acquire_lease(device, this_process())
    assert lease is not None
    claim = store.claim(run, lease)
    assert claim is not None
    output = put(store, outputs)
    if latency_ns is None:
        latency_ns = np.arange(1, len(outputs) + 1, dtype=np.int64) * 1000
    result = {
        "model_sha256": "0" * 64,
        "input_sha256": [inputs],
        "outputs": [{"blob": vars(output)}],
        "backend": {"planned": "cpu", "fallbacks": []},
        "repeats": {"count": 1, "samples": 0, "mismatches": 0},
        "telemetry": {"reasons": []},
    }
    record = AttemptRecord(
        AttemptState.OK,
        codes_valid=True,
        timing_valid=True,
        environment={"isa_flags": ["asimd"], "cores": []},
        result=result,
        artefacts={
            "output-0": output,
            "sample_hashes": put(store, digests(outputs) if hashes is None else hashes),
            "latency_ns": put(store, latency_ns),
            "telemetry": store.artefacts.put_bytes(b'{"t_s": 0.0, "values": {"temp/cpu": 40}}\n'),
        },
    )
    store.finish(claim.attempt, lease.token, record)
    store.release(lease)
    return claim.attempt


def digests(outputs: Codes) -> NDArray[np.uint8]:
    """[samples, 32], as the worker writes them."""
    joined = b"".join(hashlib.sha256(sample.tobytes()).digest() for sample in outputs)
    return np.frombuffer(joined, np.uint8).reshape(len(outputs), 32).copy()


def put(store: Store, array: NDArray[Any]) -> Blob:
    stream = io.BytesIO()
    np.save(stream, array)
    return store.artefacts.put_bytes(stream.getvalue())
