"""Device classes as data: how a product is recognised, what it says of itself, what it stands.

A class is a YAML file that selects among the built-in parsers; adding one takes no code. Those of
the product lie in ``orchestrator/devices/classes``, a user's own in ``classes/`` beside the
inventory that names them.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from device_worker import wire
from device_worker.telemetry.parsers import PARSERS
from orchestrator.errors import InputError
from orchestrator.matrix import yamlfile
from orchestrator.matrix.fields import Globs, Name, Names, Seconds, Spec, distinct, problem

GENERIC = "generic"
"""What describes a device whose class has no file of its own."""

Word = Annotated[str, Field(min_length=1)]


class SourceSpec(Spec):
    """Something to look at, and the parser that understands it (wire.Source)."""

    parser: str
    path: Globs = ()
    command: tuple[Word, ...] = ()
    stream: bool = False
    every: Seconds = Field(default=0.0, ge=0)
    timeout: Seconds = Field(default=2.0, gt=0, le=60)

    @field_validator("parser")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PARSERS:
            raise problem(
                "E-CLASS-PARSER",
                f"there is no parser {value!r:.40}",
                mend=f"one of {', '.join(sorted(PARSERS))}",
            )
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.path) == bool(self.command):
            raise problem("E-MATRIX-TYPE", "give either path or command")
        if self.stream and not self.command:
            raise problem("E-MATRIX-TYPE", "only a command can be a stream", at=("stream",))
        for i, path in enumerate(self.path):
            if not path.startswith("/"):
                raise problem("E-MATRIX-TYPE", f"{path!r:.60} is not absolute", at=("path", i))
        return self

    def source(self) -> wire.Source:
        return wire.Source(
            self.parser,
            list(self.path),
            list(self.command),
            self.stream,
            self.every,
            self.timeout,
        )


class Recognised(Spec):
    """A fact (by name) and the globs that this class's units fit."""

    fact: Word
    is_: Globs = Field(alias="is", min_length=1)


class Thermal(Spec):
    """Degrees Celsius: where a run may start, where it is stopped. None: the class says nothing."""

    max_start_c: float | None = None
    ceiling_c: float | None = None


class PowerModeSpec(Spec):
    """A named power mode (wire.PowerMode). Without ``apply`` it can be checked but not set."""

    read: SourceSpec
    expect: Word
    apply: tuple[tuple[Word, ...], ...] = ()
    restore: tuple[tuple[Word, ...], ...] = ()


class DeviceClass(Spec):
    """One product. ``like``: the class that gives whatever this file leaves out.

    ``facts`` and ``telemetry``: what can be read, of the device at rest and while a model runs.
    ``runtimes``, ``delegates``: what a healthy unit has. ``python``: ``system``, or the name of the
    hermetic bundle for units without a usable one. ``machine``: what ``uname -m`` may say.
    """

    version: Literal[1]
    name: Name
    title: Word
    like: Name | None = None
    machine: tuple[Word, ...] = ()
    recognise: tuple[Recognised, ...] = ()
    facts: tuple[SourceSpec, ...] = ()
    telemetry: tuple[SourceSpec, ...] = ()
    runtimes: Names = ()
    delegates: Annotated[Names, AfterValidator(lambda names: distinct(names, key=""))] = ()
    python: Word = "system"
    thermal: Thermal = Thermal()
    power: dict[Name, PowerModeSpec] = Field(default_factory=dict)
    notes: str = ""

    def over(self, base: DeviceClass) -> DeviceClass:
        """This class with everything it leaves out taken from ``base``."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        return base.model_copy(update={**said, "like": None})


def builtin_folder() -> Path:
    return Path(str(resources.files("orchestrator.devices").joinpath("classes")))


def load_class(name: str, folders: tuple[Path, ...] = ()) -> DeviceClass | None:
    """The class called ``name``, inheritance resolved, or None; the user's ``folders`` first.

    Raises InputError: what `yamlfile.read` and `parse` raise, E-CLASS-NAME for a file that is
    named otherwise than its class, E-CLASS-UNKNOWN for a ``like`` that leads nowhere or round.
    """
    found = _read(name, folders)
    seen = [name]
    while found is not None and found.like is not None:
        base = None if found.like in seen else _read(found.like, folders)
        if base is None:
            raise InputError(
                "E-CLASS-UNKNOWN",
                f"device class {seen[-1]!r} is like {found.like!r}, which there is not",
                mend=f"known: {', '.join(class_names(folders))}",
            )
        seen.append(found.like)
        like = base.like
        found = found.over(base).model_copy(update={"like": like})
    return found


def class_names(folders: tuple[Path, ...] = ()) -> list[str]:
    """Names of all classes there are a file of."""
    places = (*folders, builtin_folder())
    return sorted({path.stem for folder in places for path in folder.glob("*.yaml")})


def _read(name: str, folders: tuple[Path, ...]) -> DeviceClass | None:
    for folder in (*folders, builtin_folder()):
        path = folder / f"{name}.yaml"
        if not path.is_file():
            continue
        document = yamlfile.read(path)
        found = document.parse(DeviceClass)
        if found.name != name:
            raise InputError(
                "E-CLASS-NAME",
                f"the file is called {path.name}, the class {found.name!r}",
                where=document.where(("name",)),
                mend="give both the same name",
            )
        return found
    return None
