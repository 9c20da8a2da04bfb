"""What `assay devices check` and `facts` print: one line an item, its fix below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.devices.health import Health, Item, State

_MARKS = {State.OK: "✓", State.BAD: "✗", State.UNKNOWN: "?", State.NONE: "–"}
_PLAIN = {State.OK: "+", State.BAD: "x", State.UNKNOWN: "?", State.NONE: "-"}


def marks(encoding: str | None) -> Mapping[State, str]:
    """Marks that can be written in an output's encoding."""
    try:
        "".join(_MARKS.values()).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN
    return _MARKS


def checklist(health: Health, marks: Mapping[State, str] = _MARKS) -> str:
    """The lines of one device."""
    state = marks[health.state]
    head = f"{state} {health.device} ({health.device_class}): {summary(health)}"
    width = max((len(item.name) for item in health.items), default=0)
    lines = [head]
    for item in health.items:
        lines.append(f"  {marks[item.state]} {item.name:<{width}}  {item.finding}{_id(item)}")
        if item.fix:
            lines.append(f"  {' ' * (width + 4)}fix: {item.fix}")
    return "\n".join(lines)


def summary(health: Health) -> str:
    """One phrase on a device."""
    if health.in_use is not None:
        return f"in use by {health.in_use}; skipped"
    counts = {s: sum(item.state is s for item in health.items) for s in State}
    said = [
        f"{counts[state]} {word}"
        for state, word in (
            (State.BAD, "wrong"),
            (State.UNKNOWN, "not known"),
            (State.OK, "right"),
        )
        if counts[state]
    ]
    return f"{', '.join(said)} ({health.seconds:.0f} s)"


def total(devices: Sequence[Health]) -> str:
    """The last line."""
    count = {s: sum(health.state is s for health in devices) for s in State}
    return (
        f"{len(devices)} device(s): {count[State.OK]} fit for use, {count[State.BAD]} not,"
        f" {count[State.UNKNOWN]} not known"
    )


def facts(document: Mapping[str, Any]) -> str:
    """An ``assay.facts/1`` document as a table."""
    lines = [f"{document['name']} ({document['class']}): {document['address']}"]
    lines.append(f"described by the class {document['described_by']}")
    width = max((len(name) for name in document["facts"]), default=0)
    for name, fact in document["facts"].items():
        value = "unknown" if fact["value"] is None else str(fact["value"])
        lines.append(f"  {name:<{width}}  {value}  ({fact['source']})")
    lines += [f"  nothing from {source}" for source in document["silent"]]
    for python, environment in document["workers"].items():
        lines.append(f"worker under {python}")
        lines += [f"  {line}" for line in _environment(environment or {})]
    return "\n".join(lines)


def _environment(environment: Mapping[str, Any]) -> list[str]:
    if "error" in environment:
        id = environment.get("id")
        return [f"{environment['error']}{f' [{id}]' if id else ''}"]
    runtimes = {n: r.get("version") for n, r in (environment.get("runtimes") or {}).items()}
    told = [
        ("python", f"{environment.get('python')}, {environment.get('python_bits')} bits"),
        ("numpy", environment.get("numpy")),
        ("runtimes", ", ".join(f"{n} {v}" for n, v in runtimes.items()) or "none"),
        ("system", f"{environment.get('os')}, {environment.get('kernel')}"),
        ("libc", environment.get("libc")),
    ]
    return [f"{name:<8}  {value}" for name, value in told if value is not None]


def _id(item: Item) -> str:
    return f" [{item.error}]" if item.error else ""
