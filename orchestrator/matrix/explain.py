"""What a pydantic complaint means to the person who wrote the file."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class Problem:
    id: str
    what: str
    fix: str | None
    loc: tuple[str | int, ...]


_SHAPES = {
    "model_type": "should be a mapping of keys to values",
    "dict_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
}


def problems(error: ValidationError, data: Any, model: type[BaseModel]) -> list[Problem]:
    """Everything that is wrong, in no particular order; never empty."""
    details = error.errors(include_url=False)
    # Items that failed are not counted as items, so a second complaint says "too short".
    shadows = [
        d for d in details if d["type"] == "too_short" and len(d["input"]) >= d["ctx"]["min_length"]
    ]
    return [explain(d, data, model) for d in details if d not in shadows]


def explain(error: ErrorDetails, data: Any, model: type[BaseModel]) -> Problem:
    """One complaint in the file's own words.

    A validator picks its own id by raising ``PydanticCustomError("E-...", ...)``; its context may
    carry ``fix`` and ``at``, the place below the validated value.
    """
    kind, context = error["type"], error.get("ctx", {})
    loc = (*error["loc"], *context.get("at", ()))
    place = _show(loc, data)
    if kind.startswith("E-"):
        return Problem(kind, f"{place}: {error['msg']}", context.get("fix"), loc)
    if kind == "extra_forbidden":
        parent = _show(loc[:-1], data)
        return Problem(
            "E-MATRIX-KEY",
            f"unknown key {loc[-1]!r} in {parent}",
            _suggest(str(loc[-1]), sorted(_keys_at(model, loc[:-1]))),
            loc,
        )
    if kind == "missing" and isinstance(loc[-1], int):
        what = f"{_show(loc[:-1], data)}: item {loc[-1] + 1} is missing"
        return Problem("E-MATRIX-TYPE", what, None, loc)
    if kind in ("missing", "union_tag_not_found"):
        key = loc[-1] if kind == "missing" else context["discriminator"].strip("'")
        parent = _show(loc[:-1] if kind == "missing" else loc, data)
        return Problem("E-MATRIX-MISSING", f"key {key!r} is missing in {parent}", None, loc)
    if kind == "union_tag_invalid":
        key = context["discriminator"].strip("'")
        return Problem(
            "E-MATRIX-TYPE",
            f"{place}.{key}: {context['tag']!r} is unknown",
            f"one of {context['expected_tags']}",
            (*loc, key),
        )
    message = _SHAPES.get(kind) or error["msg"].removeprefix("Value error, ")
    message = message.removeprefix("Input ")
    got = "" if isinstance(error["input"], dict | list) else f", got {error['input']!r:.60}"
    fix = None
    if kind == "string_type" and isinstance(error["input"], bool | int | float):
        fix = "put it in quotes"
    return Problem("E-MATRIX-TYPE", f"{place}: {message}{got}", fix, loc)


def _show(loc: tuple[str | int, ...], data: Any) -> str:
    """``models[0].task`` for people, without the tags of unions that pydantic adds."""
    text, value = "", data
    for part in loc:
        if isinstance(value, list) and isinstance(part, int):
            text += f"[{part}]"
            value = value[part] if 0 <= part < len(value) else None
        elif isinstance(value, dict) and part in value:
            text += f".{part}"
            value = value[part]
    return text.lstrip(".") or "the file"


def _suggest(word: str, known: list[str]) -> str | None:
    close = difflib.get_close_matches(word, known, n=3)
    if close:
        # Swapped letters (prot, port) before merely similar words.
        best = next((c for c in close if sorted(c) == sorted(word)), close[0])
        return f"did you mean {best!r}?"
    return f"known keys: {', '.join(known)}" if known else None


def _keys_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> set[str]:
    """The keys that the model's own JSON Schema allows at ``loc``."""
    root = model.model_json_schema()
    nodes = list(_options(root, root))
    for part in loc:
        inner = [
            option
            for node in nodes
            if (child := _child(node, part)) is not None
            for option in _options(child, root)
        ]
        tagged = [n for n in nodes if _tag(n) == part]
        nodes = inner or tagged or nodes
    return {key for node in nodes for key in node.get("properties", {})}


def _options(node: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "$ref" in node:
        node = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    alternatives = node.get("anyOf") or node.get("oneOf")
    if not alternatives:
        yield node
        return
    for alternative in alternatives:
        yield from _options(alternative, root)


def _child(node: Mapping[str, Any], part: str | int) -> Mapping[str, Any] | None:
    child = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
    return child if isinstance(child, Mapping) else None


def _tag(node: Mapping[str, Any]) -> Any:
    return node.get("properties", {}).get("type", {}).get("const")
