"""Device classes as data: how a product is recognised, what it says of itself, what it stands.

A class is a YAML file that selects among the built-in parsers; adding one takes no code. Those of
the product lie in ``orchestrator/devices/classes``, a user's own in ``classes/`` beside the
inventory that names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from device_worker import wire
from device_worker.telemetry.parsers import FACTS, PARSERS, Value
from orchestrator.errors import InputError
from orchestrator.matrix import yamlfile
from orchestrator.matrix.fields import (
    Celsius,
    Globs,
    Name,
    Names,
    Seconds,
    Spec,
    distinct,
    matches,
    problem,
)

GENERIC = "generic"
"""What describes a device whose class has no file of its own."""

Word = Annotated[str, Field(min_length=1)]


class SourceSpec(Spec):
    """Something to look at, and the parser that understands it (wire.Source).

    ``units``: glob of a sensor's name -> what its temperature is counted in.
    """

    parser: str
    path: Globs = ()
    command: tuple[Word, ...] = ()
    stream: bool = False
    every: Seconds = Field(default=0.0, ge=0)
    timeout: Seconds = Field(default=2.0, gt=0, le=60)
    units: dict[Word, Literal["degrees", "tenths", "millidegrees"]] = Field(default_factory=dict)

    @field_validator("parser")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PARSERS:
            raise problem(
                "E-CLASS-PARSER",
                f"there is no parser {value!r:.40}",
                fix=f"one of {', '.join(sorted(PARSERS))}",
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
        # They travel to a device's shell as lines (orchestrator.devices.facts).
        for key in ("path", "command"):
            for i, word in enumerate(getattr(self, key)):
                if not word.isprintable():
                    raise problem("E-MATRIX-TYPE", f"{word!r:.60} is not one line", at=(key, i))
        return self

    def source(self) -> wire.Source:
        return wire.Source(
            self.parser,
            list(self.path),
            list(self.command),
            self.stream,
            self.every,
            self.timeout,
            dict(self.units),
        )


class Recognised(Spec):
    """A fact (by name) and the globs that this class's units fit."""

    fact: Word
    is_: Globs = Field(alias="is", min_length=1)


class Thermal(Spec):
    """When a device may start a cell, and when it must stop. None: nothing is said of it.

    It starts at ``max_start_c`` degrees Celsius and ``min_battery`` percent, for which it is given
    ``settle_s`` seconds; it is stopped above ``ceiling_c``.
    """

    max_start_c: Celsius | None = None
    ceiling_c: Celsius | None = None
    min_battery: float | None = Field(default=None, ge=0, le=100)
    settle_s: Seconds | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _starts_below_the_ceiling(self) -> Self:
        start, ceiling = self.max_start_c, self.ceiling_c
        if start is not None and ceiling is not None and start > ceiling:
            raise problem(
                "E-MATRIX-TYPE",
                f"a start at {start:g} °C would be stopped at {ceiling:g} °C",
                fix="max_start_c below ceiling_c",
                at=("max_start_c",),
            )
        return self

    def over(self, other: Thermal) -> Thermal:
        """These limits; of ``other`` those that these leave out."""
        said = {name: getattr(self, name) for name in Thermal.model_fields}
        return other.model_copy(update={k: v for k, v in said.items() if v is not None})


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

    @field_validator("facts")
    @classmethod
    def _facts_end(cls, value: tuple[SourceSpec, ...]) -> tuple[SourceSpec, ...]:
        for i, source in enumerate(value):
            if source.stream:
                raise problem("E-MATRIX-TYPE", "a fact cannot be a stream", at=(i, "stream"))
        return value

    def over(self, base: DeviceClass) -> DeviceClass:
        """This class with everything it leaves out taken from ``base``."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        return base.model_copy(update={**said, "like": None})

    def told(self) -> set[str]:
        """Names of the facts that its sources may tell."""
        return {name for source in self.facts for name in FACTS.get(source.parser, ())}

    def telling(self, names: Iterable[str]) -> tuple[SourceSpec, ...]:
        """The sources that may tell one of these facts, in their order."""
        wanted = set(names)
        return tuple(s for s in self.facts if wanted & FACTS.get(s.parser, frozenset()))


def builtin_folder() -> Path:
    return Path(str(resources.files("orchestrator.devices").joinpath("classes")))


def recognise(
    facts: Mapping[str, Value], machine: str | None, classes: Iterable[DeviceClass]
) -> list[str]:
    """Names of the classes that a device of these facts may belong to, the most specific first.

    A class fits when ``machine`` (``uname -m``) is one of its own and every fact that it is
    recognised by is known and fits. A class that asks for neither fits any device, as the last.
    """
    fitting = []
    for known in classes:
        if known.machine and machine not in known.machine:
            continue
        said = [(facts.get(r.fact), r.is_) for r in known.recognise]
        if all(value is not None and matches(globs, str(value)) for value, globs in said):
            fitting.append((-len(known.recognise), not known.machine, known.name))
    return [name for *_, name in sorted(fitting)]


class _File(NamedTuple):
    content: DeviceClass
    like_at: str
    """``file:line`` of its ``like``."""


def load_class(name: str, folders: tuple[Path, ...] = ()) -> DeviceClass | None:
    """The class called ``name``, inheritance resolved, or None; the user's ``folders`` first.

    Raises InputError: what `yamlfile.read` and `parse` raise, E-CLASS-NAME for a file that is
    with another name than its class, E-CLASS-UNKNOWN for a ``like`` that leads nowhere or round.
    """
    file = _read(name, folders)
    if file is None:
        return None
    found, seen = file.content, [name]
    while found.like is not None:
        like, at = found.like, file.like_at
        base = None if like in seen else _read(like, folders)
        if base is None:
            known = [known for known in class_names(folders) if known not in seen]
            raise InputError(
                "E-CLASS-UNKNOWN",
                f"device classes are alike in a circle: {' → '.join([*seen, like])}"
                if like in seen
                else f"there is no device class {like!r}",
                where=at,
                fix=f"known: {', '.join(known)}",
            )
        seen.append(like)
        found = found.over(base.content).model_copy(update={"like": base.content.like})
        file = base
    return found


def load_classes(folders: tuple[Path, ...] = ()) -> list[DeviceClass]:
    """All classes there are, by name. Raises InputError as `load_class` does."""
    found = [load_class(name, folders) for name in class_names(folders)]
    return [known for known in found if known is not None]


def class_names(folders: tuple[Path, ...] = ()) -> list[str]:
    """Names of all classes there are a file of."""
    places = (*folders, builtin_folder())
    return sorted({path.stem for folder in places for path in folder.glob("*.yaml")})


def _read(name: str, folders: tuple[Path, ...]) -> _File | None:
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
                fix="give both the same name",
            )
        return _File(found, document.where(("like",)))
    return None
