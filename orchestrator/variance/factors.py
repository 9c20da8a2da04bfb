"""What an answer depends on besides model and inputs, and in what two answers differ.

Pure: read off what the worker records of itself (`device_worker.environment`), of the runtime it
used, and of the row. Factors lie on five axes; on two of them the outer ones bring the inner ones
with them (another core is always another unit, another runtime always has another version), so a
difference on an axis counts under its outermost factor:

    place      core > class > unit > system
    engine     runtime > version
    threads, kernels, condition
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device_worker.wire import RuntimeSpec
from orchestrator.matrix.key import Key, key_of
from orchestrator.variance.observation import Row

FACTORS = (
    *("core", "class", "unit", "system"),
    *("runtime", "version", "threads", "kernels", "condition"),
)
CPU = "CPUExecutionProvider"
_SYSTEM = ("kernel", "os", "libc", "hardware")


@dataclass(frozen=True)
class Factors:
    """``core``: machine, kinds of cores, digest of the ISA flags. ``system``: digest of kernel,

    operating system, libc, hardware and microcode; not of Python and NumPy, which come with a
    runtime's environment and only carry bytes whose hashes are checked. ``build``: digest of the
    runtime's native libraries, which differ by machine. ``kernels``: "default", or what was asked
    for in its place (kernel set, delegate, providers, session options) and what silently fell back.
    ``condition``: "clean" for repeats too, which change nothing. None is unknown.
    """

    core: str | None
    device_class: str
    unit: str
    system: str | None
    runtime: str
    version: str | None
    build: str | None
    threads: int
    kernels: str
    condition: str

    @property
    def key(self) -> Key:
        """What a fingerprint must have been taken on to speak for this answer."""
        return Key(version=self.version, build=self.build, core=self.core)

    def text(self) -> str:
        """As one would name it in a line: unit, runtime, version, and what is not usual."""
        version = self.version or "(version unknown)"
        parts = [f"{self.unit}/{self.runtime} {version} threads {self.threads}"]
        parts += [x for x in (self.kernels, self.condition) if x not in ("default", "clean")]
        return " ".join(parts)


def factors(
    row: Row, spec: RuntimeSpec, environment: Mapping[str, Any], fallbacks: tuple[str, ...] = ()
) -> Factors:
    """``environment`` as `device_worker.environment.describe` gave it, {} where none was kept;

    ``fallbacks`` as in `device_worker.wire.Backend`.
    """
    key = key_of(environment)
    return Factors(
        core=key.core,
        device_class=row.device_class,
        unit=row.device,
        system=_system(environment),
        runtime=spec.runtime,
        version=key.version,
        build=key.build,
        threads=environment.get("threads") or spec.threads,
        kernels=kernels(spec, environment.get("delegate"), fallbacks),
        condition="clean" if row.condition.startswith("repeat:") else row.condition,
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
    rest = [f for f in ("threads", "kernels", "condition") if getattr(a, f) != getattr(b, f)]
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


def kernels(spec: RuntimeSpec, delegate: Any = None, fallbacks: tuple[str, ...] = ()) -> str:
    """As ``Factors.kernels``; ``delegate``: as a worker described it."""
    asked = [] if spec.kernels == "default" else [spec.kernels]
    asked += [p for p in spec.providers if p != CPU]
    if spec.delegate is not None:
        asked.append(f"delegate {spec.delegate.name} {_short(delegate or vars(spec.delegate))}")
    for provider, options in sorted(spec.provider_options.items()):
        asked += [f"{provider} {k}={v}" for k, v in sorted(options.items())]
    asked += [f"{k}={v}" for k, v in sorted(spec.session.items())]
    asked += [f"fallback: {line}" for line in fallbacks]
    return ", ".join(asked) or "default"


def _short(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:8]
