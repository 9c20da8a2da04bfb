"""Checking live devices under the store's leases, so that no running coordinator is disturbed."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.coordinator.reservations import InUseError, Reservations
from orchestrator.devices.bundle import find_bundle
from orchestrator.devices.checks import StoppedError, Subject, address, check
from orchestrator.devices.facts import read_facts
from orchestrator.devices.health import HELD, Health, Item, State, bad, failed, unknown
from orchestrator.devices.parallel import side_by_side
from orchestrator.devices.session import Grant, Limits
from orchestrator.devices.shell_facts import holder, read_extras
from orchestrator.errors import AssayError
from orchestrator.matrix.device_class import DeviceClass
from orchestrator.matrix.inventory import Device, bundle_name
from orchestrator.transports import open_transport

LIMIT_S = 900.0
"""Longest one device is waited for."""
FACTS_S = 60.0
WORKER_S = 120.0


def check_devices(
    devices: Sequence[Device],
    classes: Sequence[DeviceClass],
    root: Path,
    *,
    contract: bool = True,
    accept: bool = False,
    limit_s: float = LIMIT_S,
    hub: str | None = None,
) -> Generator[Health]:
    """The health of each device as it is known, several at once.

    ``hub``: the name of the hub that this machine is; devices of other hubs are not looked for, as
    what has their address here may be something else.
    ``accept``: what they show of themselves now is right, whatever the store remembers. Leaving
    early stops the checks and gives the leases back. Raises InfraError E-STORE-*.
    """
    stop, by_name = threading.Event(), {device.name: device for device in devices}
    with Reservations(root) as reservations:

        def work(name: str) -> Health:
            device = by_name[name]
            if device.hub not in (None, hub):
                what = f"only its hub {device.hub} reaches it"
                fix = f"run this command there, with --hub {device.hub}"
                return _one(device, unknown("reachable", what, fix))
            try:
                with reservations.of(device) as grant:
                    return _check(device, grant)
            except InUseError as error:
                return Health(name, device.class_, in_use=str(error))
            except StoppedError:
                return Health(name, device.class_, in_use="nobody: the check was interrupted")
            except AssayError as error:
                return _one(device, failed("check", error, name))
            except Exception as error:  # noqa: BLE001  a bug must not take the other devices along
                what = f"internal error: {type(error).__name__}: {error}"
                return _one(device, bad("check", what, "please report it", "E-BUG"))

        def _check(device: Device, grant: Grant) -> Health:
            assert device.profile is not None, "the loader gives every device one"
            seen = None if accept else reservations.seen(device.name)
            subject = Subject(device, device.profile, grant, seen, classes, contract)
            checked = check(subject, stop)
            if not _stranger(checked.health):
                reservations.remember(device, checked)
            return checked.health

        def late(name: str) -> Health:
            what = f"not done within {limit_s:g} s"
            fix = "see what hangs there; --timeout gives it longer"
            return _one(by_name[name], bad("check", what, fix, "E-DEADLINE"))

        for _, health in side_by_side(list(by_name), work, late, limit_s=limit_s, stop=stop):
            yield health


def facts_document(device: Device, root: Path) -> dict[str, Any]:
    """The JSON document ``assay.facts/1``: what device and worker say, with the source of each.

    Raises InfraError when the device cannot be reached or asked.
    """
    assert device.profile is not None, "the loader gives every device one"
    document: dict[str, Any] = {
        "schema": "assay.facts/1",
        "name": device.name,
        "class": device.class_,
        "described_by": device.profile.name,
        "address": address(device),
    }
    with Reservations(root) as reservations:
        try:
            with reservations.of(device) as grant:
                return document | _asked(device, device.profile, grant)
        except InUseError as error:
            return document | _asked(device, device.profile, str(error))


def _asked(device: Device, profile: DeviceClass, grant: Grant | str) -> dict[str, Any]:
    """``grant``, or which run is using the device; then no worker is started on it."""
    transport = open_transport(device.transport, device=device.name)
    leased = grant if isinstance(grant, Grant) else Grant("", 0)
    limits = Limits(WORKER_S, WORKER_S)
    with leased.session(transport, device=device.name, limits=limits) as session:
        facts = read_facts(transport, profile.facts, timeout=FACTS_S)
        workers: dict[str, Any] = {}
        if isinstance(grant, Grant):
            extras = read_extras(transport, timeout=FACTS_S)
            other = holder(transport, grant.owner, extras, timeout=FACTS_S)
            grant = grant if other is None else other
        for python in dict.fromkeys(device.python.values()):
            if isinstance(grant, str):
                workers[python] = {"error": f"not asked: in use by {grant}", "id": None}
                continue
            try:
                name = bundle_name(python)
                bundle = find_bundle(name) if name else None
                worker = session.worker(python, device.env, bundle)
                workers[python] = worker.ask("facts", timeout=WORKER_S)["environment"]
            except AssayError as error:
                workers[python] = {"error": error.what, "id": error.id}
                if error.id in HELD:
                    grant = "another farm"
    return {
        "facts": {fact.name: {"value": fact.value, "source": fact.source} for fact in facts.facts},
        "silent": list(facts.silent),
        "workers": workers,
    }


def _stranger(health: Health) -> bool:
    """Whether something says that this is not the unit that is meant, or not all is known."""
    telling = {"same unit", "identity", "board file", "class", "reachable", "facts", "still there"}
    return any(i.name in telling and i.state is State.BAD for i in health.items)


def _one(device: Device, item: Item) -> Health:
    return replace(Health(device.name, device.class_), items=(item,))
