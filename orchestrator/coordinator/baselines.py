"""The FP32 parents, each run once per input set on the coordinator's machine and kept by hash.

A baseline goes the way every cell goes (same worker, same adapters), to a throw-away device.
"""

from __future__ import annotations

import functools
import sys
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from device_worker import wire
from device_worker.scratch import scratch
from orchestrator.coordinator.jobs import blobs_of
from orchestrator.errors import AssayError, InfraError
from orchestrator.fanout.executor import Executor
from orchestrator.fanout.hub import Hub
from orchestrator.fanout.hub_job import Order, Target
from orchestrator.results.finished import Finished
from orchestrator.runs.baselines import Baseline, _known
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.store.database import Store
from orchestrator.store.records import BaselineKey
from orchestrator.transports.settings import LocalSettings

RUNTIME_OF = {"onnx": "onnxruntime", "tflite": "litert"}


def baselines(store: Store, fan: Executor, frozen: FrozenRun) -> dict[tuple[str, str], Baseline]:
    """(model, inputs) -> its FP32 parent's answers; computed where the store lacks them."""
    found: dict[tuple[str, str], Baseline] = {}
    running: dict[tuple[str, str], tuple[BaselineKey, Future[Finished]]] = {}
    for spec in frozen.matrix.models:
        for inputs in spec.inputs:
            tensor = frozen.staging.tensors.get(f"{spec.name}/{inputs}")
            if spec.fp32 is None or tensor is None:
                continue
            runtime = wire.RuntimeSpec(runtime=RUNTIME_OF[spec.fp32.format])
            job = frozen.staging.job(uuid.uuid4().hex, spec.name, inputs, runtime)
            environment = store.environment(_here(runtime.runtime))
            key = BaselineKey(job.model.sha256, [tensor.sha256], environment)
            if known := _known(functools.partial(store.baseline_get, key)):
                found[spec.name, inputs] = known
                continue
            blobs = {b.sha256: str(store.artefacts.path(b.sha256)) for b in blobs_of(job)}
            running[spec.name, inputs] = key, fan.compute(run_alone, job, blobs)
    for name, (key, future) in running.items():
        found[name] = _keep(store, key, future)
    return found


def run_alone(job: wire.Job, blobs: dict[str, str]) -> Finished:
    """Run one job in a worker of its own on this machine, in a folder that goes away."""
    with scratch("baseline") as folder:
        hub = Hub(Path(folder) / "spool")
        try:
            target = Target(
                "baseline", "baseline", LocalSettings(root=f"{folder}/device"), "baseline", 1
            )
            return hub.run(Order(target, job, sys.executable, blobs))
        finally:
            hub.close()


def _keep(store: Store, key: BaselineKey, future: Future[Finished]) -> Baseline:
    try:
        finished = future.result()
    except AssayError as error:
        return Baseline(None, error=str(error))
    if finished.failure is not None or finished.result is None:
        return Baseline(None, error=finished.failure.text if finished.failure else "no result")
    outputs = [
        store.artefacts.put_bytes(finished.files[f"output-{i}"]).sha256
        for i in range(len(finished.result["outputs"]))
    ]
    store.baseline_put(key, {"attempt": finished.attempt, "outputs": outputs})
    return Baseline(finished.attempt, tuple(outputs))


def _here(runtime: str) -> dict[str, Any]:
    """What an FP32 answer depends on here: runtime, its version, NumPy, the CPU's flags."""
    from importlib.metadata import version

    package = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}[runtime]
    return {"runtime": runtime, "version": version(package), "cpu": _cpu_flags()}


def _cpu_flags() -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError as error:
        raise InfraError("E-CPUINFO", f"cannot read /proc/cpuinfo: {error.strerror}") from error
    for line in text.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return sorted(flags.split())
    return []
