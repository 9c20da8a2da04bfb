"""A matrix's runtime on a unit of the inventory, as a worker is told of it."""

from __future__ import annotations

from device_worker import wire
from orchestrator.matrix.inventory import Device
from orchestrator.matrix.model import RuntimeConfig


def runtime_spec(config: RuntimeConfig, device: Device) -> wire.RuntimeSpec:
    found = device.delegates.get(config.delegate or "")
    return wire.RuntimeSpec(
        runtime=config.runtime,
        threads=config.threads,
        kernels=config.kernels,
        reset=config.reset == "on",
        providers=list(config.provider),
        provider_options={name: dict(o) for name, o in config.provider_options.items()},
        session=dict(config.session),
        delegate=wire.Delegate(config.delegate, found.library, dict(found.options), found.sha256)
        if found and config.delegate
        else None,
    )
