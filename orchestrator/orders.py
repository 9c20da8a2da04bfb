"""From a claimed cell to the order that a hub carries out, and from its answer to a record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from device_worker import wire
from orchestrator.devices.session import Limits
from orchestrator.fanout.order import Finished, Order, Target
from orchestrator.frozen import FrozenRun
from orchestrator.matrix.model import RuntimeConfig, repeats
from orchestrator.queue.states import AttemptState
from orchestrator.store.artefacts import Artefacts
from orchestrator.store.records import AttemptRecord, Blob, CellInfo, Claim, Json


def order_for(claim: Claim, frozen: FrozenRun, artefacts: Artefacts, farm: str) -> Order:
    """``farm``: the owner name under which this store's leases are known on devices."""
    cell, matrix = claim.cell, frozen.matrix
    device, config = frozen.inventory.device(claim.device), matrix.runtime(cell.runtime)
    job = job_for(claim.attempt, cell, frozen, config)
    return Order(
        target=Target(device.name, device.class_, device.transport, farm, claim.token),
        job=job,
        python=device.interpreter(config.runtime),
        blobs={b.sha256: str(artefacts.path(b.sha256)) for b in blobs_of(job)},
        limits=Limits(matrix.timeouts.cell, matrix.timeouts.silence),
        env=dict(device.env),
        max_start_c=matrix.gate.max_start_c,
        min_battery=matrix.gate.min_battery,
        settle_s=matrix.gate.settle_s,
        own_python=config.runtime in device.python,
    )


def job_for(attempt: str, cell: CellInfo, frozen: FrozenRun, config: RuntimeConfig) -> wire.Job:
    """What the device is told: model and tensor by hash, and how to run them."""
    whole = frozen.staging.job(
        attempt, f"{cell.model}.{cell.file}", cell.inputs, runtime_spec(config)
    )
    count = repeats(cell.condition)
    return replace(
        whole,
        samples=min(whole.samples, frozen.matrix.repeat_samples) if count else whole.samples,
        repeat=count or 1,
        telemetry_hz=frozen.matrix.telemetry_hz,
    )


def runtime_spec(config: RuntimeConfig) -> wire.RuntimeSpec:
    return wire.RuntimeSpec(
        runtime=config.runtime,
        threads=config.threads,
        kernels=config.kernels,
        provider=config.provider,
        session=dict(config.session),
    )


def blobs_of(job: wire.Job) -> list[wire.Blob]:
    """Every file the job needs on the device."""
    return [job.model, *(tensor.blob for tensor in job.inputs)]


def record(finished: Finished, artefacts: Artefacts) -> AttemptRecord:
    """An answer as the store keeps it; its files are put into the artefact store first."""
    failure, result = finished.failure, finished.result
    if failure is not None or result is None:
        return AttemptRecord(
            AttemptState(finished.outcome),
            error_id=failure.id if failure else None,
            error=failure.text if failure else None,
            retryable=failure.retryable if failure else False,
            started=finished.started_unix,
            ended=finished.ended_unix,
        )
    kept: dict[str, Blob] = {}
    for role, data in sorted(finished.files.items()):
        kept[role] = artefacts.put_bytes(data)
    environment, summary = _without(result, "environment")
    return AttemptRecord(
        AttemptState.OK,
        codes_valid=True,
        timing_valid=bool(summary["telemetry"]["timing_valid"]) and not finished.timing_notes,
        started=finished.started_unix,
        ended=finished.ended_unix,
        environment=environment,
        result={
            **summary,
            "timing_notes": list(finished.timing_notes),
            "bytes_pushed": finished.bytes_pushed,
        },
        artefacts=kept,
    )


def _without(data: Json, key: str) -> tuple[Any, Json]:
    return data[key], {k: v for k, v in data.items() if k != key}
