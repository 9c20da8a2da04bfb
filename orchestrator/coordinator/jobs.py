"""From a claimed cell to the order that a hub carries out, and from its answer to a record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from device_worker import fence, wire
from orchestrator.conditions import parse
from orchestrator.devices.identity import expected
from orchestrator.devices.session import Limits
from orchestrator.fanout.hub_job import Order, Target
from orchestrator.matrix.device_class import Thermal
from orchestrator.matrix.fields import matches
from orchestrator.matrix.inventory import Device
from orchestrator.matrix.model import Matrix, RuntimeConfig
from orchestrator.matrix.runtime import runtime_spec
from orchestrator.queue.states import AttemptState
from orchestrator.results.check import Asked, Declared
from orchestrator.results.files import ITEM_SIZES
from orchestrator.results.finished import Finished
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.staging.bundles import bundle_for
from orchestrator.store.artefacts import Artefacts
from orchestrator.store.records import AttemptRecord, Blob, CellInfo, Claim, Json


def order_for(
    claim: Claim,
    frozen: FrozenRun,
    artefacts: Artefacts,
    farm: str,
    shown: fence.Claim = fence.NO_STORE,
) -> Order:
    """The job that a hub gets for a claimed cell.

    ``farm``: the owner name under which this store's leases are known on devices. ``shown``: as of
    the lease.
    """
    cell, matrix = claim.cell, frozen.matrix
    device, config = frozen.inventory.device(claim.device), matrix.runtime(cell.runtime)
    job = job_for(claim.attempt, cell, frozen, config, device)
    limits = _limits(matrix, device)
    unavailable_id, why = unavailable(cell, config, device, job.ceiling_c)
    return Order(
        target=Target(
            device.name,
            device.class_,
            device.transport,
            farm,
            claim.token,
            device.cache_limit,
            expected(device),
            shown,
        ),
        job=job,
        python=device.interpreter(config.runtime),
        bundle=bundle_for(device.interpreter(config.runtime), frozen.staging, artefacts),
        blobs={b.sha256: str(artefacts.path(b.sha256)) for b in blobs_of(job)},
        limits=Limits(matrix.timeouts.cell + _soaking_s(job.soak), matrix.timeouts.silence),
        env=dict(device.env),
        max_start_c=limits.max_start_c,
        min_battery=limits.min_battery,
        settle_s=limits.settle_s or 0.0,
        own_python=config.runtime in device.python,
        unavailable=why,
        unavailable_id=unavailable_id,
        reset=device.reset,
        outputs=declared(frozen, cell),
    )


def unavailable(
    cell: CellInfo, config: RuntimeConfig, device: Device, ceiling_c: float | None = None
) -> tuple[str, str | None]:
    """Error ID and why inventory, class or ceiling say that the device cannot run it, or None."""
    condition = parse(cell.condition)
    mode = condition.mode
    if device.interpreter(config.runtime) is None:
        return "E-RUNTIME-MISSING", f"no Python for {config.runtime} in the inventory"
    if config.delegate and config.delegate not in device.delegates:
        return "E-DELEGATE-LIBRARY", f"no delegate {config.delegate!r} in the inventory"
    if mode and (device.profile is None or mode not in device.profile.power):
        return "E-POWER-MODE", f"its class knows no power mode {mode!r}"
    return "E-SOAK-CEILING", condition.heat.above(ceiling_c) if condition.heat else None


def job_for(
    attempt: str, cell: CellInfo, frozen: FrozenRun, config: RuntimeConfig, device: Device
) -> wire.Job:
    """What the device is told: model and tensor by hash, and how to run them."""
    matrix, condition = frozen.matrix, parse(cell.condition)
    whole = frozen.staging.job(
        attempt,
        f"{cell.model}.{cell.file}",
        cell.inputs,
        runtime_spec(config, device),
        cell.condition,
    )
    return replace(
        whole,
        samples=min(whole.samples, matrix.repeat_samples) if condition.few else whole.samples,
        repeat=condition.passes,
        telemetry_hz=matrix.telemetry_hz,
        sources=[s.source() for s in device.profile.telemetry] if device.profile else [],
        ceiling_c=_limits(matrix, device).ceiling_c,
        soak=None
        if condition.heat is None
        else wire.Soak(condition.heat.target_c, condition.heat.hold_s, matrix.gate.heat_s),
        power=_power(condition.mode, device),
        order=condition.order,
    )


def _power(mode: str | None, device: Device) -> wire.PowerMode | None:
    """The mode as its class describes it; the commands only where the inventory opts in."""
    found = device.profile.power.get(mode) if mode and device.profile else None
    if mode is None or found is None:
        return None
    allowed = matches(device.power, mode)
    return wire.PowerMode(
        mode,
        found.read.source(),
        found.expect,
        [list(c) for c in found.apply] if allowed else [],
        [list(c) for c in found.restore] if allowed else [],
    )


def _soaking_s(soak: wire.Soak | None) -> float:
    """Seconds that a cell may take beyond its measuring."""
    return soak.heat_s + soak.hold_s if soak else 0.0


def _limits(matrix: Matrix, device: Device) -> Thermal:
    """The matrix's, else the class's."""
    return matrix.gate.over(device.profile.thermal if device.profile else Thermal())


def blobs_of(job: wire.Job) -> list[wire.Blob]:
    """Every file the job needs on the device."""
    return [job.model, *(tensor.blob for tensor in job.inputs)]


def asked_for(claim: Claim, frozen: FrozenRun) -> Asked:
    """What an answer to the claim is held to (`results.check`)."""
    cell, config = claim.cell, frozen.matrix.runtime(claim.cell.runtime)
    device = frozen.inventory.device(claim.device)
    job = job_for(claim.attempt, cell, frozen, config, device)
    return Asked(job, claim.device, claim.token, declared(frozen, cell))


def declared(frozen: FrozenRun, cell: CellInfo) -> tuple[Declared, ...]:
    """The outputs as the cell's model file declares them."""
    outputs = frozen.staging.models[f"{cell.model}.{cell.file}"].outputs
    return tuple(Declared(o.dtype if o.dtype in ITEM_SIZES else None, o.shape) for o in outputs)


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
            hub=finished.hub,
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
        hub=finished.hub,
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
