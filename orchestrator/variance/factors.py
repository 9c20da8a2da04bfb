"""What an answer depends on besides model and inputs, and in what two answers differ.

Pure: read off what the worker records of itself (`device_worker.environment`), of the runtime it
used, and of the row. Factors lie on five axes; on two of them the outer ones bring the inner ones
with them (another core is always another unit, another runtime always has another version), so a
difference on an axis counts under its outermost factor:

    place      core > class > unit > system
    engine     runtime > version
    threads, kernels, reset, condition

No setting is left out: whatever `RuntimeSpec` holds beyond the factors of its own is named in
``kernels``, field by field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from device_worker.wire import RuntimeSpec
from orchestrator.conditions import CLEAN, parse
from orchestrator.matrix.key import Key, key_of
from orchestrator.variance.observation import Row

CPU = "CPUExecutionProvider"
_SYSTEM = ("kernel", "os", "libc", "hardware")
_PLAIN = re.compile(r"[\w.:/+-]+")


@dataclass(frozen=True)
class Way:
    """How a runtime was asked to compute.

    ``kernels``: "default", or what was asked for in its place (kernel set, delegate, providers,
    session options) and what silently fell back. ``reset``: "off" where a sample meets the state
    that the one before it left.
    """

    runtime: str
    threads: int
    kernels: str
    reset: str


@dataclass(frozen=True)
class Factors(Way):
    """Everything that may move an answer, one field each.

    ``core``: machine, kinds of cores, digest of the ISA flags. ``system``: digest of kernel,
    operating system, libc, hardware and microcode; not of Python and NumPy, which come with a
    runtime's environment and only carry bytes whose hashes are checked. ``build``: digest of the
    runtime's native libraries, which differ by machine. ``condition``: "clean" for repeats too,
    which change nothing. None is unknown.
    """

    core: str | None
    device_class: str
    unit: str
    system: str | None
    version: str | None
    build: str | None
    condition: str

    @property
    def way(self) -> Way:
        return Way(**{f.name: getattr(self, f.name) for f in fields(Way)})

    @property
    def key(self) -> Key:
        """What a fingerprint must have been taken on to speak for this answer."""
        return Key(version=self.version, build=self.build, core=self.core)

    def text(self) -> str:
        """As one would name it in a line: unit, runtime, version, and what is not usual."""
        version = self.version or "(version unknown)"
        parts = [f"{self.unit}/{self.runtime} {version} threads {self.threads}"]
        return " ".join([*parts, *unusual(vars(self))])


PLACE = ("core", "device_class", "unit", "system")
ENGINE = ("runtime", "version", "build")
SETTINGS = tuple(f.name for f in fields(Factors) if f.name not in (*PLACE, *ENGINE))
"""Each an axis of its own."""
FACTORS = ("core", "class", "unit", "system", "runtime", "version", *SETTINGS)


def unusual(found: Mapping[str, Any]) -> list[str]:
    """What is not usual among named factors, in words; threads are always told beside it."""
    reset = "reset off" if found.get("reset") == "off" else "on"
    said = (found.get("kernels"), reset, found.get("condition"))
    return [x for x in said if x not in ("default", "on", CLEAN, None)]


def factors(
    row: Row, spec: RuntimeSpec, environment: Mapping[str, Any], fallbacks: tuple[str, ...] = ()
) -> Factors:
    """The factors of an attempt.

    ``environment`` as `device_worker.environment.describe` gave it, {} where none was kept;
    ``fallbacks`` as in `device_worker.wire.Backend`.
    """
    key = key_of(environment)
    return Factors(
        **vars(way(spec, environment.get("delegate"), fallbacks)),
        core=key.core,
        device_class=row.device_class,
        unit=row.device,
        system=_system(environment),
        version=key.version,
        build=key.build,
        condition=parse(row.condition).factor,
    )


def changed(a: Factors, b: Factors) -> tuple[str, ...] | None:
    """Which factors differ, one at most for each axis; () when none does.

    None where an unknown could be a difference. Two machines have two builds of one version; on
    the same core another build of it is another "version", unless a build is unknown.
    """
    place = _outermost(
        ("core", a.core, b.core),
        ("class", a.device_class, b.device_class),
        ("unit", a.unit, b.unit),
        ("system", a.system, b.system),
    )
    builds = (a.build, b.build) if place != "core" and a.build and b.build else ("", "")
    engine = _outermost(
        ("runtime", a.runtime, b.runtime),
        ("version", a.version, b.version),
        ("version", *builds),
    )
    if place is None or engine is None:
        return None
    rest = [f for f in SETTINGS if getattr(a, f) != getattr(b, f)]
    return tuple(name for name in (place, engine, *rest) if name)


def system_of(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an environment that ``Factors.system`` stands for."""
    microcode = sorted({c["microcode"] for c in environment.get("cores") or () if "microcode" in c})
    return {**{name: environment.get(name) for name in _SYSTEM}, "microcode": microcode}


def _outermost(*pairs: tuple[str, Any, Any]) -> str | None:
    """The first that differs, "" when none does, None when one before it is unknown."""
    for name, a, b in pairs:
        if a is None or b is None:
            return None
        if a != b:
            return name
    return ""


def _system(environment: Mapping[str, Any]) -> str | None:
    if "kernel" not in environment:
        return None
    told = json.dumps(system_of(environment), sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def way(spec: RuntimeSpec, delegate: Any = None, fallbacks: tuple[str, ...] = ()) -> Way:
    """``delegate``: as a worker described it; ``fallbacks`` as in `device_worker.wire.Backend`."""
    return Way(
        runtime=spec.runtime,
        threads=spec.threads,
        kernels=kernels(spec, delegate, fallbacks),
        reset="on" if spec.reset else "off",
    )


def kernels(spec: RuntimeSpec, delegate: Any = None, fallbacks: tuple[str, ...] = ()) -> str:
    """As ``Way.kernels``: every field of ``spec`` that is no factor of its own and not as usual."""
    usual, asked = RuntimeSpec(spec.runtime), []
    own = {f.name for f in fields(Way)} - {"kernels"}
    for name, value in vars(spec).items():
        if name in own or value == getattr(usual, name):
            continue
        asked += _words(name, value, delegate)
    asked += [f"fallback: {line}" for line in fallbacks]
    return ", ".join(asked) or "default"


def _words(name: str, value: Any, delegate: Any) -> list[str]:
    """One setting, such that no two settings have the same words."""
    match name:
        case "kernels":
            return [_word(value)]
        case "providers":  # the CPU comes last, named or not
            return [_word(p) for p in (value[:-1] if value[-1] == CPU else value)]
        case "delegate":
            return [f"delegate {_word(value.name)} {_short(delegate or vars(value))}"]
        case "provider_options":
            named = [(p, k, v) for p, options in value.items() for k, v in options.items()]
            return [f"{_word(p)} {_word(k)}={_word(v)}" for p, k, v in sorted(named)]
        case "session":
            return [f"{_word(k)}={_word(v)}" for k, v in sorted(value.items())]
        case _:
            return [f"{name}={json.dumps(value, sort_keys=True, default=str)}"]


def _word(text: str) -> str:
    """As it is, in quotes where it could be taken for several."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _short(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:8]
