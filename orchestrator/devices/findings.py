"""From what a device said to the items of its checklist: pure.

A class that recognises a product knows what its units have: what one of them does not show is
unknown. A generic class promises nothing: what is not there is no item to be worried about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from device_worker.telemetry.parsers import Value
from device_worker.telemetry.parsers.android import OVERRIDE
from device_worker.telemetry.parsers.raspberry import NOW, words
from device_worker.telemetry.plausible import Doubts, lines
from device_worker.telemetry.sensors import hottest
from orchestrator.devices.facts import Facts
from orchestrator.devices.health import Item, bad, nothing, ok, unknown
from orchestrator.devices.identity import compared
from orchestrator.matrix.device_class import GENERIC, DeviceClass
from orchestrator.matrix.environment import CLOCK_TOLERANCE_S
from orchestrator.matrix.fields import matches
from orchestrator.matrix.inventory import Device

Values = Mapping[str, float | None]

MIB = 1 << 20
ROOM = 128 * MIB
"""Bytes that must be free on a device: the worker, a model, its inputs and outputs."""
BUNDLE_ROOM = 256 * MIB
"""Bytes more for a hermetic bundle: its archive, and beside it what is unpacked."""

IDENTIFYING = ("serial", "hardware", "machine", "cpu", "revision")
"""Facts that stay with a unit whatever is installed on it."""

_IDENTITY_FIX = "find out why: it is another unit, or its board was exchanged"
_THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_DOUBT_FIX = (
    "look at the sensor; where its unit is known, say it under `units` in the device's class"
)
_SHOWN = 3
_UNDER_VOLTAGE = 1 << 16 | 1


class Extras(NamedTuple):
    """What a device's shell says besides its facts. None: not known.

    ``clock_s``: its seconds since 1970, less ours. ``free``: bytes at the root. ``board``: the text
    of /etc/assay-board.json; ``lease``: of lease.json in the root. ``bundles``: hermetic bundles
    that are there.
    """

    clock_s: float | None = None
    free: int | None = None
    board: str | None = None
    lease: str | None = None
    bundles: int = 0


def recorded(device: Device, facts: Facts) -> Item:
    """The facts under ``identity`` in the inventory."""
    if not device.identity:
        return nothing("identity", "the inventory records none")
    wrong, missing = compared(device.identity, facts.values())
    if wrong:
        fix = f"{_IDENTITY_FIX}; then correct `identity` in the inventory"
        return bad("identity", "; ".join(wrong), fix, "E-DEVICE-IDENTITY")
    if missing:
        what = f"{', '.join(missing)} cannot be read: runs are refused"
        return unknown("identity", what, "see what `assay devices facts` shows")
    return ok("identity", ", ".join(f"{k} {v}" for k, v in device.identity.items()))


def identity_of(facts: Facts) -> dict[str, Value]:
    """What is kept of a checked unit, to compare it with the next time."""
    return {name: facts.get(name) for name in IDENTIFYING if facts.get(name) is not None}


def same_unit(seen: Mapping[str, Any] | None, facts: Facts) -> Item:
    """Whether it is the unit that the store knows by this name. ``seen``: `identity_of` then."""
    if not seen:
        return nothing("same unit", "never checked before with this store")
    changed = [
        f"{name} is {now}, was {seen[name]}"
        for name in IDENTIFYING
        if name in seen and (now := facts.get(name)) is not None and str(now) != str(seen[name])
    ]
    if changed:
        fix = f"{_IDENTITY_FIX}; then accept it with --accept"
        return bad("same unit", "; ".join(changed), fix, "E-DEVICE-IDENTITY")
    gone = [name for name in IDENTIFYING if name in seen and facts.get(name) is None]
    if gone:
        return unknown("same unit", f"no longer readable: {', '.join(gone)}")
    return ok("same unit", f"as seen before: {', '.join(str(v) for v in seen.values())}")


def board(device: Device, says: Any) -> Item | None:
    """An emulated board says which class it is of. ``says``: its board file, as JSON data."""
    if says is None:
        return None
    found = says.get("class") if isinstance(says, dict) else None
    if found is None:
        return bad("board file", "/etc/assay-board.json names no class", "set the board up again")
    if found != device.class_:
        return bad(
            "board file",
            f"the inventory calls it {device.class_!r}, the device says {found!r}",
            "correct 'class' in the inventory",
            "E-DEVICE-IDENTITY",
        )
    return ok("board file", f"{found}, emulated" if says.get("emulated") else str(found))


def recognised(device: Device, profile: DeviceClass, facts: Facts, fitting: Sequence[str]) -> Item:
    """Whether its facts fit the class that describes it. ``fitting``: `recognise`'s answer."""
    named = device.like or device.class_
    if profile.name == GENERIC and named != GENERIC:
        return ok("class", f"no file describes {named!r}: treated as any Linux device")
    machine = facts.get("machine")
    others = [name for name in fitting if name != GENERIC]
    fix = (
        f"its facts fit {', '.join(others)}: correct `class` or `like` in the inventory"
        if others
        else "correct `class` or `like` in the inventory"
    )
    if profile.machine and machine is None:
        return unknown("class", "the device does not say what machine it is")
    if profile.machine and machine not in profile.machine:
        what = f"it is {machine}, {profile.name} is {' or '.join(profile.machine)}"
        return bad("class", what, fix, "E-DEVICE-IDENTITY")
    for rule in profile.recognise:
        found = facts.get(rule.fact)
        if found is None:
            return unknown("class", f"{rule.fact}, by which {profile.name} is told, is not known")
        if not matches(rule.is_, str(found)):
            what = f"{rule.fact} is {found}, not that of {profile.name}"
            return bad("class", what, fix, "E-DEVICE-IDENTITY")
    hardware = str(facts.get("hardware") or machine or profile.title)
    told = [f"{r.fact} {facts.get(r.fact)}"[:60] for r in profile.recognise if r.fact != "hardware"]
    return ok("class", f"{profile.name}: {', '.join([hardware, *told])}")


def clock(offset: float | None) -> Item:
    """``offset``: its clock less ours, seconds."""
    if offset is None:
        return unknown("clock", "the device does not tell the time")
    if abs(offset) > CLOCK_TOLERANCE_S:
        return bad("clock", f"off by {offset:+,.0f} s", "let it keep time (NTP), or set it")
    return ok("clock", "right" if abs(offset) < 2 else f"{offset:+.0f} s off ours")


def disk(free: int | None, bundles: int, where: str) -> Item:
    """``free``: bytes at ``where``. ``bundles``: so many hermetic bundles have to fit as well."""
    if free is None:
        return unknown("disk", f"the device does not say how much is free at {where}")
    needed = ROOM + BUNDLE_ROOM * bundles
    finding = f"{size(free)} free at {where}"
    if free < needed:
        fix = "free some space, or give the device another `root`"
        return bad("disk", f"{finding}, {size(needed)} are needed", fix, "E-DISK-FULL")
    return ok("disk", finding)


def size(count: int) -> str:
    """Bytes for people, in binary units."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.3g} {units[0]}" if value < 1000 else f"{value:.0f} {units[0]}"


def runtime(name: str, python: str, environment: Mapping[str, Any]) -> Item:
    """Whether a runtime is installed under the interpreter that serves it."""
    found = (environment.get("runtimes") or {}).get(name)
    if not found:
        return bad(
            f"runtime {name}",
            f"not installed for {python}",
            f"install {name} there, or name the Python that has it in the inventory",
            "E-RUNTIME-MISSING",
        )
    distribution = found.get("distribution")
    usual = distribution in (None, name, f"ai-edge-{name}")
    also = "" if usual else f" ({distribution})"
    return ok(f"runtime {name}", f"{found.get('version')}{also} for {python}")


def sensors(readings: Mapping[str, Values], profile: DeviceClass) -> Item:
    """``readings``: source -> what it told. Every source of the class is in it."""
    values = merged(readings)
    kinds = {"temp": "temperature", "freq": "clock", "power": "power", "volt": "voltage"}
    kinds |= {"battery": "battery value", "flags": "throttle flag", "load": "load"}
    counts = {
        word: sum(1 for n, v in values.items() if v is not None and n.startswith(f"{kind}/"))
        for kind, word in kinds.items()
    }
    told = ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items() if n)
    silent = [s for s, found in readings.items() if all(v is None for v in found.values())]
    finding = told or "none can be read"
    if silent:
        # What a generic class looks for may well not be there, and is not worth a line each.
        named = ", ".join(_short(source) for source in silent)
        many = f"{len(silent)} of {len(readings)} sources"
        finding += f"; nothing from {named if profile.recognise else many}"
    if not counts["temperature"]:
        fix = "without a temperature no run can be watched: see which source its user may read"
        return unknown("sensors", f"no temperature; {finding}", fix)
    if silent and profile.recognise and len(silent) == len(readings):
        return unknown("sensors", finding)
    return ok("sensors", finding)


def doubtful(doubts: Doubts) -> list[Item]:
    """Readings that there were and that are not believed."""
    if not doubts:
        return []
    told = "; ".join(lines(doubts)[:_SHOWN])
    more = f"; and {len(doubts) - _SHOWN} more" if len(doubts) > _SHOWN else ""
    return [unknown("readings", told + more, _DOUBT_FIX)]


def merged(readings: Mapping[str, Values]) -> dict[str, float | None]:
    """The first source that read a sensor counts."""
    values: dict[str, float | None] = {}
    for found in readings.values():
        for name, value in found.items():
            if values.get(name) is None:
                values[name] = value
    return values


def governor(facts: Facts, profile: DeviceClass) -> Item:
    told = [
        f"{label}{facts.get(name)}"
        for name, label in (("governor", "governor "), ("power_mode", "power mode "))
        if facts.get(name) is not None
    ]
    if told:
        return ok("governor", ", ".join(told))
    return _untold("governor", "neither governor nor power mode is told", profile)


def throttling(facts: Facts, values: Values, profile: DeviceClass) -> Item:
    """What the firmware, the processor or Android remember of being slowed down."""
    known = {**values, **{n: v for n, v in facts.values().items() if v is not None}}
    wrong: list[str] = []
    told: list[str] = []
    flags = known.get("flags/throttled")
    if isinstance(flags, int | float):
        said = ", ".join(words(int(flags)))
        grave = int(flags) & (NOW | _UNDER_VOLTAGE)
        (wrong if grave else told).append(said or "never throttled since it was started")
    for name in ("core_throttle_count", "package_throttle_count"):
        count = known.get(f"flags/{name}")
        if isinstance(count, int | float):
            told.append(f"{name.replace('_', ' ')} {count:.0f}")
    status = known.get("status/thermal")
    if isinstance(status, int | float):
        level = int(status)
        word = _THERMAL_STATUS[level] if 0 <= level < len(_THERMAL_STATUS) else str(level)
        (wrong if level else told).append(f"thermal status {word}")
    if known.get("flags/under_voltage") == 1:
        wrong.append("under-voltage was seen just now")
    if wrong:
        fix = "a better power supply and cable, or cooling; a restart clears what is remembered"
        return bad("throttling", "; ".join([*wrong, *told]), fix)
    if known.get(OVERRIDE) == 1:
        fix = "`cmd thermalservice reset` in its shell"
        return unknown("throttling", "; ".join(["the thermal status is forced", *told]), fix)
    if told:
        return ok("throttling", "; ".join(told))
    return _untold("throttling", "nothing tells whether it was throttled", profile)


def temperature(values: Values, profile: DeviceClass, doubts: Doubts | None = None) -> Item:
    """Idle, against what the class lets a run start at, else where it stops one.

    With ``doubts`` of its sensors it is unknown, where none would merely be not told.
    """
    celsius, start, ceiling = (
        hottest(values),
        profile.thermal.max_start_c,
        profile.thermal.ceiling_c,
    )
    limit = ceiling if start is None else start
    if limit is None:
        if celsius is None:
            return _untold("idle temperature", "not known", profile)
        return ok("idle temperature", f"{celsius:g} °C; the class sets no limit")
    rule = f"runs {'are stopped above' if start is None else 'start below'} {limit:g} °C"
    if celsius is None:
        told = f"not known; {rule}"
        if start is None and not any(
            name.startswith("temp/") for name in doubts or ()
        ):  # no run waits for it to become known
            return _untold("idle temperature", told, profile)
        return unknown("idle temperature", told)
    if celsius > limit:
        fix = "let it cool, or cool it better: a run is given settle_s for it at its start"
        return bad("idle temperature", f"{celsius:g} °C, {rule}", fix)
    return ok("idle temperature", f"{celsius:g} °C, {rule}")


def delegate(name: str, runtime: str, device: Device, told: Mapping[str, Any]) -> Item:
    """A delegate that loaded. ``told``: what the worker says of it."""
    standin = told.get("standin")
    if standin is not None and standin != device.class_:
        return bad(
            f"delegate {name}",
            f"{told.get('library')} is the stand-in {standin!r}, no accelerator of {device.class_}",
            "install the real library, or correct 'class' in the inventory",
            "E-DEVICE-IDENTITY",
        )
    version = f", {told['version']}" if told.get("version") else ""
    kind = "stand-in, " if standin else ""
    return ok(
        f"delegate {name}",
        f"{kind}{told.get('library')}{version}, sha256 {str(told.get('sha256'))[:12]}, "
        f"loads in {runtime}",
    )


def _untold(name: str, finding: str, profile: DeviceClass) -> Item:
    return unknown(name, finding) if profile.recognise else nothing(name, finding)


def _short(source: str) -> str:
    """A source's label, cut at its first glob: enough to find it."""
    first, comma, _ = source.partition(", ")
    return first + (", …" if comma else "")
