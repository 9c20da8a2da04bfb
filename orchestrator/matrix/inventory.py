"""The device inventory: which units there are and how each is reached."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic.json_schema import SkipJsonSchema

from orchestrator.matrix.device_class import DeviceClass
from orchestrator.matrix.fields import (
    NAME_PATTERN,
    Bytes,
    Globs,
    Name,
    Sha256,
    Spec,
    distinct,
    problem,
)
from orchestrator.transports.settings import TransportSettings

RUNTIMES = ("default", "onnxruntime", "litert", "tflite-runtime")
PYTHON = "${PYTHON}"
"""Stands for the coordinator's own interpreter."""
BUNDLE = "bundle:"
"""Before the name of a hermetic bundle (infra/bundles), which is brought to the device."""


class DelegateSpec(Spec):
    """A TFLite delegate on the device: ``library`` is a path or soname there.

    ``sha256``: of that file; without it whatever lies there is used, and its hash recorded.
    """

    library: Annotated[str, Field(min_length=1)]
    sha256: Sha256 | None = None
    options: dict[str, str] = Field(default_factory=dict)


class Device(Spec):
    """One unit. ``python`` names the interpreter per runtime, ``default`` for the others.

    Left out, it is what the device's class stands for. A runtime without one is "not available
    here". Interpreters and roots on this machine may be given relative to the inventory file;
    interpreters elsewhere are absolute or a bare name; ``bundle:NAME`` is a hermetic bundle.
    ``like``: the device class whose file describes the unit, if not that of its own class. ``hub``:
    the host that reaches it, if not the coordinator's. ``identity``: facts that the unit must show.
    ``power``: globs of the power modes that may be *set* on it. ``reset``: a command for its hub
    that power-cycles the port of its accelerator. ``cache_limit``: what models and inputs may take
    on it, the worker's own limit (4 GiB) unless given.
    """

    name: Name
    class_: Name = Field(alias="class")
    tags: Annotated[tuple[Name, ...], AfterValidator(lambda tags: distinct(tags, key=""))] = ()
    transport: TransportSettings
    python: dict[str, str] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    like: Name | None = None
    hub: Name | None = None
    identity: dict[str, str] = Field(default_factory=dict)
    delegates: dict[Name, DelegateSpec] = Field(default_factory=dict)
    power: Globs = ()
    reset: tuple[str, ...] = ()
    cache_limit: Annotated[Bytes, Field(gt=0)] | None = None
    notes: str = ""
    profile: SkipJsonSchema[DeviceClass | None] = None
    """What its class says, filled in by `orchestrator.matrix.loader`: files cannot give it."""

    @field_validator("profile")
    @classmethod
    def _not_from_a_file(cls, value: DeviceClass | None, info: ValidationInfo) -> Any:
        if value is not None and (info.context or {}).get("base"):
            raise problem("E-MATRIX-KEY", "'profile' is not a key", fix="name a class with 'like'")
        return value

    @field_validator("transport")
    @classmethod
    def _root_beside_this_file(cls, value: Any, info: ValidationInfo) -> Any:
        base = (info.context or {}).get("base")
        if base is None or value.type not in ("local", "fake") or value.root.startswith("~"):
            return value
        return value.model_copy(update={"root": os.path.normpath(base / value.root)})

    @field_validator("python")
    @classmethod
    def _interpreters(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        transport = info.data.get("transport")
        if transport is None:  # its own complaint has been made already
            return value
        base = (info.context or {}).get("base")
        for key in value:
            if key not in RUNTIMES:
                raise problem(
                    "E-MATRIX-KEY",
                    f"{key!r} is not a runtime",
                    fix=f"one of {', '.join(RUNTIMES)}",
                    at=(key,),
                )
        find = _remote if transport.type in ("ssh", "adb") else _local
        return {key: find(key, path, base) for key, path in value.items()}

    @field_validator("env")
    @classmethod
    def _variables(cls, value: dict[str, str]) -> dict[str, str]:
        for key, text in value.items():
            if not key or "=" in key or "\0" in key + text:
                raise problem("E-MATRIX-TYPE", f"{key!r} is not a variable name", at=(key,))
        return value

    def interpreter(self, runtime: str) -> str | None:
        """The interpreter for a runtime, or None: not available here."""
        return self.python.get(runtime, self.python.get("default"))


def default_python(profile: DeviceClass, system: str = "python3") -> str:
    """The entry of ``python`` that a class stands for; ``system``: where it has no bundle."""
    return system if profile.python == "system" else BUNDLE + profile.python


def bundle_name(python: str | None) -> str | None:
    """The hermetic bundle that an entry of ``python`` names, None for an interpreter."""
    return python.removeprefix(BUNDLE) if python and python.startswith(BUNDLE) else None


def _bundle(key: str, path: str) -> str:
    name = path.removeprefix(BUNDLE)
    if not re.fullmatch(NAME_PATTERN, name):
        raise problem("E-MATRIX-NAME", f"{name!r:.80} is no name of a bundle", at=(key,))
    return path


def _local(key: str, path: str, base: Path | None) -> str:
    if path.startswith(BUNDLE):
        return _bundle(key, path)
    if path == PYTHON:
        return sys.executable
    if "/" not in path or base is None:
        return path
    path = str(Path(path).expanduser())
    # Not resolved: following a virtual environment's symlink would leave the environment.
    return os.path.normpath(base / path)


def _remote(key: str, path: str, base: Path | None) -> str:
    if path.startswith(BUNDLE):
        return _bundle(key, path)
    if path == PYTHON or not path or path.startswith("~") or ("/" in path and path[0] != "/"):
        raise problem(
            "E-MATRIX-TYPE",
            f"{path!r:.80} does not name an interpreter on another machine",
            fix="an absolute path there, or a bare command name",
            at=(key,),
        )
    return path


class Inventory(Spec):
    version: Literal[1]
    devices: Annotated[tuple[Device, ...], AfterValidator(distinct)] = Field(min_length=1)

    def device(self, name: str) -> Device:
        return next(d for d in self.devices if d.name == name)

    def hubs(self, names: Iterable[str]) -> dict[str, str]:
        """Device -> hub, of those of ``names`` that the coordinator's host does not reach."""
        wanted = set(names)
        return {d.name: d.hub for d in self.devices if d.hub is not None and d.name in wanted}
