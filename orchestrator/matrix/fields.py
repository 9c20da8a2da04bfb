"""The field types that matrix and inventory files share: names, paths, durations, lists."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

T = TypeVar("T")

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}"
DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?(KiB|MiB|GiB)$"
_SIZES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Spec(BaseModel):
    """A piece of a file: unknown keys refused, nothing coerced, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def problem(
    id: str, what: str, *, fix: str | None = None, at: Iterable[str | int] = ()
) -> PydanticCustomError:
    """What a validator raises to choose its own id and to point below the value it checks."""
    # The message goes in as a parameter: user text may contain braces.
    return PydanticCustomError(id, "{what}", {"what": what, "fix": fix, "at": tuple(at)})


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise problem(
            "E-MATRIX-NAME",
            f"{value!r:.80} is not a name",
            fix="1 to 63 of A-Z a-z 0-9 . _ + -, beginning with a letter or digit",
        )
    return value


def _file(value: Any, info: ValidationInfo) -> Path:
    """Absolute once read from a file; a thawed path is absolute already."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise problem("E-MATRIX-TYPE", f"{value!r:.60} is not a path")
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:
        raise problem("E-MATRIX-TYPE", str(error)) from None
    base = (info.context or {}).get("base")
    return Path(os.path.normpath(base / path)) if base else path


def _seconds(value: Any) -> Any:
    fix = "seconds, or a number with ms, s, m, h or d, such as 90s or 6h"
    return _with_unit(value, "a duration", DURATION_PATTERN, _UNITS, fix)


def _bytes(value: Any) -> Any:
    fix = "bytes, or a number with KiB, MiB or GiB, such as 512MiB"
    found = _with_unit(value, "a size", SIZE_PATTERN, _SIZES, fix)
    return int(found) if isinstance(value, str) else found


def _with_unit(value: Any, what: str, pattern: str, units: Mapping[str, float], fix: str) -> Any:
    """A text as a number of the unit that is 1; what is no text is left to the type."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(pattern, value)
    if not match:
        raise problem("E-MATRIX-TYPE", f"{value!r:.40} is not {what}", fix=fix)
    return float(value.removesuffix(match[2])) * units[match[2]]


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Name = Annotated[
    str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"})
]
File = Annotated[Path, PlainValidator(_file, json_schema_input_type=str)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seconds = Annotated[
    float,
    BeforeValidator(
        _seconds, json_schema_input_type=float | Annotated[str, Field(pattern=DURATION_PATTERN)]
    ),
]
Bytes = Annotated[
    int,
    BeforeValidator(
        _bytes, json_schema_input_type=int | Annotated[str, Field(pattern=SIZE_PATTERN)]
    ),
]
Celsius = Annotated[float, Field(ge=-50, le=150)]
Names = Annotated[
    tuple[Name, ...], BeforeValidator(_listed, json_schema_input_type=Name | list[Name])
]
Files = Annotated[
    tuple[File, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])
]
Globs = Annotated[tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])]


def matches(globs: tuple[str, ...], *candidates: str) -> bool:
    """Whether any of the candidates fits any of the globs (``*``, ``?``, ``[..]``)."""
    return any(fnmatchcase(c, glob) for glob in globs for c in candidates)


def distinct(items: tuple[T, ...], *, key: str = "name") -> tuple[T, ...]:
    """For an ``AfterValidator``: E-MATRIX-DUPLICATE at the second of two equal names."""
    seen: dict[Any, int] = {}
    for i, item in enumerate(items):
        value = getattr(item, key) if key else item
        if value in seen:
            raise problem(
                "E-MATRIX-DUPLICATE",
                f"{value!r} is already the name of entry {seen[value] + 1}",
                fix="rename one of them",
                at=(i, key) if key else (i,),
            )
        seen[value] = i
    return items
