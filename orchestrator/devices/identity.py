"""Is it the unit that the inventory means? The facts under ``identity``, asked of the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from device_worker.telemetry.parsers import Value
from orchestrator.devices.facts import read_facts
from orchestrator.errors import InfraError
from orchestrator.matrix.device_class import SourceSpec
from orchestrator.matrix.inventory import Device
from orchestrator.transports.base import Transport

ASKING_S = 30.0
"""For facts that are files or quick commands, on a slow board."""


@dataclass(frozen=True)
class Identity:
    """``facts``: what the unit must show, by name. ``sources``: what tells them there."""

    facts: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[SourceSpec, ...] = ()


ANYBODY = Identity()
"""Of a unit that the inventory knows by nothing but its address."""


def expected(device: Device) -> Identity:
    """What the inventory says of the unit, with no more of its class's sources than tell it."""
    profile = device.profile
    return Identity(dict(device.identity), profile.telling(device.identity) if profile else ())


def compared(
    wanted: Mapping[str, str], told: Mapping[str, Value]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is otherwise, in words, and the names of what is not known."""
    known = {name: told[name] for name in wanted if told.get(name) is not None}
    wrong = tuple(
        f"its {name} is {found}, not {wanted[name]}"
        for name, found in known.items()
        if str(found) != wanted[name]
    )
    return wrong, tuple(name for name in wanted if name not in known)


def confirm(transport: Transport, identity: Identity, *, device: str) -> None:
    """Ask the device, over an open transport; nothing where there is nothing to compare.

    Raises InfraError E-DEVICE-IDENTITY for another unit and for one that does not show a fact;
    what `read_facts` raises.
    """
    if not identity.facts:
        return
    told: Mapping[str, Value] = {}
    if identity.sources:
        told = read_facts(transport, identity.sources, timeout=ASKING_S).values()
    wrong, missing = compared(identity.facts, told)
    trouble = [*wrong, *(f"its {name} cannot be read" for name in missing)]
    if trouble:
        raise InfraError(
            "E-DEVICE-IDENTITY",
            "; ".join(trouble),
            where=device,
            fix="see `assay devices facts`; if it is the unit that is meant, correct `identity`"
            " in the inventory",
            retryable=False,
        )
