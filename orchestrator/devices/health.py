"""The outcome of checking a device: a list of items, each right, wrong or not known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.errors import AssayError, Exit


class State(StrEnum):
    """``none``: nothing of the kind is there to check. What could not be learned is never ok."""

    OK = "ok"
    BAD = "bad"
    UNKNOWN = "unknown"
    NONE = "none"


@dataclass(frozen=True)
class Item:
    """``finding``: one line. ``fix`` and ``error`` (an E-ID): only where it is not ok."""

    name: str
    state: State
    finding: str
    fix: str | None = None
    error: str | None = None


def ok(name: str, finding: str) -> Item:
    return Item(name, State.OK, finding)


def bad(name: str, finding: str, fix: str | None = None, error: str | None = None) -> Item:
    return Item(name, State.BAD, finding, fix, error)


def unknown(name: str, finding: str, fix: str | None = None, error: str | None = None) -> Item:
    return Item(name, State.UNKNOWN, finding, fix, error)


def nothing(name: str, finding: str) -> Item:
    return Item(name, State.NONE, finding)


HELD = frozenset({"E-LEASE-HELD", "E-LEASE-STALE"})
"""Errors that say of a device only that somebody else is using it."""


REFUSED = frozenset({"E-STORE-COPY", "E-LEASE-CORRUPT"})
"""Errors that say that the device lets in nobody, or not this store, until somebody acts."""


def failed(name: str, error: AssayError, device: str) -> Item:
    """The item of a step that raised. ``device``: its name, which need not be said again."""
    what = " ".join(error.what.split()).removeprefix(f"{device}: ")
    make = unknown if error.id in HELD else bad
    return make(name, what, error.fix, error.id)


@dataclass(frozen=True)
class Health:
    """One device. ``in_use``: by which run, so that it was left alone; then there are no items."""

    device: str
    device_class: str
    items: tuple[Item, ...] = ()
    in_use: str | None = None
    seconds: float = 0.0

    @property
    def state(self) -> State:
        """The worst of its items; unknown for a device that was left alone."""
        states = {item.state for item in self.items}
        if State.BAD in states:
            return State.BAD
        if self.in_use is not None or State.UNKNOWN in states or State.OK not in states:
            return State.UNKNOWN
        return State.OK

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.device,
            "class": self.device_class,
            "state": self.state.value,
            "in_use": self.in_use,
            "seconds": round(self.seconds, 1),
            "items": [{**vars(item), "state": item.state.value} for item in self.items],
        }


def exit_code(devices: Iterable[Health]) -> Exit:
    """INFRA when anything is wrong, else INCONCLUSIVE when anything is not known, else PASS."""
    states = {health.state for health in devices}
    if State.BAD in states:
        return Exit.INFRA
    return Exit.PASS if states == {State.OK} else Exit.INCONCLUSIVE


def document(devices: Iterable[Health]) -> dict[str, Any]:
    """The JSON document ``assay.check/2`` (orchestrator/reports/schema/check-2.json)."""
    found = list(devices)
    count = {state.value: sum(h.state is state for h in found) for state in State}
    del count[State.NONE.value]
    return {
        "schema": "assay.check/2",
        "count": count,
        "devices": [health.as_json() for health in found],
    }
