"""Taking fingerprints: leased devices answer the probe pack, and the store keeps what they said."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_worker import wire
from device_worker.runtimes import FORMATS
from orchestrator.coordinator.reservations import Reservations
from orchestrator.coordinator.visit import Visit, visit
from orchestrator.devices.batch import run
from orchestrator.devices.parallel import side_by_side
from orchestrator.errors import AssayError, DeadlineError, InfraError, InputError, NotAvailableError
from orchestrator.fingerprint.classes import Member
from orchestrator.fingerprint.identify import identify
from orchestrator.fingerprint.pack import archive, probes, wide
from orchestrator.matrix.environment import emulated
from orchestrator.matrix.inventory import Device
from orchestrator.store import fingerprints
from orchestrator.store.database import Store

CONFIGURATIONS: Mapping[str, wire.RuntimeSpec] = {
    "onnxruntime": wire.RuntimeSpec("onnxruntime"),
    **{
        f"{runtime}/{kernels}": wire.RuntimeSpec(runtime, kernels=kernels)
        for runtime in ("litert", "tflite-runtime")
        for kernels in ("default", "builtin", "reference")
    },
}
"""Every way in which a CPU of the farm may be asked to compute."""
THREADS = 2
"""Threads under which the wide probes are asked again."""
LIMIT_S = 600.0
"""Longest one device is waited for."""


@dataclass(frozen=True)
class Taken:
    """A fingerprint, or why there is none; no ``configuration``: why there is no (other) one."""

    device: str
    configuration: str
    member: Member | None = None
    error: AssayError | None = None


def chosen(names: Sequence[str]) -> dict[str, wire.RuntimeSpec]:
    """Configurations by runtime or full name, all of them without one. InputError E-USAGE."""
    found: dict[str, wire.RuntimeSpec] = {}
    for name in names or list(CONFIGURATIONS):
        fits = {k: v for k, v in CONFIGURATIONS.items() if name in (k, v.runtime)}
        if not fits:
            raise InputError(
                "E-USAGE", f"no runtime {name!r}", fix=f"one of {', '.join(CONFIGURATIONS)}"
            )
        found |= fits
    return found


def take(
    devices: Sequence[Device],
    configurations: Mapping[str, wire.RuntimeSpec],
    root: Path,
    *,
    limit_s: float = LIMIT_S,
) -> Generator[Taken]:
    """Fingerprints of every device as they are known, several devices at once; all are stored.

    Leaving early gives the leases back. Raises InfraError E-STORE-*.
    """
    by_name, stop = {device.name: device for device in devices}, threading.Event()
    with Store.open(root) as store, Reservations(root) as reservations:

        def work(name: str) -> list[Taken]:
            found: list[Taken] = []
            try:
                with visit(by_name[name], reservations) as there:
                    found.extend(_all(there, configurations, store, stop))
            except AssayError as error:
                found.append(Taken(name, "", error=error))
            except Exception as error:  # noqa: BLE001  a bug must not take the other devices along
                what = f"internal error: {type(error).__name__}: {error}"
                found.append(Taken(name, "", error=InfraError("E-BUG", what, where=name)))
            return found

        def late(name: str) -> list[Taken]:
            error = DeadlineError("E-DEADLINE", f"not done within {limit_s:g} s", where=name)
            return [Taken(name, "", error=error)]

        for _, taken in side_by_side(list(by_name), work, late, limit_s=limit_s, stop=stop):
            yield from taken


def _all(
    there: Visit,
    configurations: Mapping[str, wire.RuntimeSpec],
    store: Store,
    stop: threading.Event,
) -> Iterator[Taken]:
    for name, spec in configurations.items():
        if stop.is_set():
            return
        try:
            yield Taken(there.device.name, name, _one(there, name, spec, store))
        except NotAvailableError as error:
            yield Taken(there.device.name, name, error=error)


def _one(there: Visit, name: str, spec: wire.RuntimeSpec, store: Store) -> Member:
    device, form, worker = there.device, FORMATS[spec.runtime], there.fresh(spec.runtime)
    once = run(there.session, worker, archive(probes(form)), spec)
    again = wire.RuntimeSpec(spec.runtime, threads=THREADS, kernels=spec.kernels)
    twice = run(there.session, worker, archive(wide(form)), again)
    document = identify(form, once, {THREADS: twice})
    facts: Mapping[str, Any] = once.environment
    document["taken_on"] = _key(facts)
    version = facts.get("runtime", {}).get("version")
    known = any(d.emulated for d in store.devices() if d.name == device.name)
    store.upsert_device(device.name, device.class_, emulated(facts) or known, {})
    fingerprints.save(store, device.name, name, version, dict(facts), document)
    return Member(device.name, name, version, document)


def _key(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Build and processor that gave the answers, of which `matrix.key` makes the key.

    They are no part of the identity.
    """
    cores = {tuple(sorted(core.items())) for core in facts.get("cores", [])}
    return {
        "runtime": facts.get("runtime"),
        "machine": facts.get("machine"),
        "isa_flags": facts.get("isa_flags"),
        "cores": [dict(core) for core in sorted(cores)],
    }
