"""YAML files read strictly and with positions, so that every complaint can say ``file:line``.

The YAML 1.2 core schema is used rather than PyYAML's 1.1: ``no``, ``on`` and ``off`` are words
(and real label names), ``1e-3`` is a number, and ``1:30`` or ``2024-01-01`` are plain text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.errors import InputError
from orchestrator.matrix.explain import problems
from orchestrator.matrix.files import open_file

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
"""Most values a file may hold once its aliases are expanded: an anchors bomb stops here."""
MAX_ERRORS = 20
MAX_DEPTH = 40

M = TypeVar("M", bound=BaseModel)
Loc = Sequence[str | int]

_TAG = "tag:yaml.org,2002:"
_CORE = (
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]{1,40}|0x[0-9a-fA-F]{1,32}|0o[0-7]{1,40}", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _TooDeep(yaml.composer.ComposerError):
    pass


class _Loader(yaml.SafeLoader):
    # An own, empty table: add_implicit_resolver would otherwise extend a copy of YAML 1.1's.
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  (PyYAML's own declaration)
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = parent.start_mark if parent else None
            raise _TooDeep(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


for _name, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(
        _TAG + _name,
        re.compile(rf"^(?:{_pattern})$"),
        ["" if c == "\0" else c for c in _first],
    )


@dataclass(frozen=True)
class Document:
    """One file: its data as plain JSON values and the node tree that knows the lines."""

    path: Path
    data: Any
    root: yaml.Node

    def line(self, loc: Loc = ()) -> int:
        """Line (from 1) of the entry at ``loc``, or of its nearest existing parent.

        Parts that lead nowhere are skipped: pydantic puts the tags of unions into its paths.
        """
        node, line = self.root, self.root.start_mark.line + 1
        for part in loc:
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == part:
                        node, line = value, key.start_mark.line + 1
                        break
            elif (
                isinstance(node, yaml.SequenceNode)
                and isinstance(part, int)
                and 0 <= part < len(node.value)
            ):
                node = node.value[part]
                line = node.start_mark.line + 1
        return line

    def where(self, loc: Loc = ()) -> str:
        """``file:line`` of the entry at ``loc``."""
        return f"{self.path}:{self.line(loc)}"

    def parse(self, model: type[M]) -> M:
        """Validate as ``model``; its paths are resolved against this file's folder.

        Raises InputError for the first complaint in file order, missing keys last, and ``also``
        the others: E-MATRIX-KEY, E-MATRIX-TYPE, E-MATRIX-MISSING, or the id a validator of the
        model chose.
        """
        try:
            # JSON mode: strict types, yet lists may become tuples and text may become paths.
            return model.model_validate_json(
                json.dumps(self.data), context={"base": self.path.absolute().parent}
            )
        except ValidationError as error:
            found = problems(error, self.data, model)
        # A missing key is often the shadow of a misspelt one: tell that last.
        found.sort(key=lambda p: (p.id == "E-MATRIX-MISSING", self.line(p.loc)))
        errors = [
            InputError(p.id, p.what, where=self.where(p.loc), fix=p.fix) for p in found[:MAX_ERRORS]
        ]
        if more := len(found) - len(errors):
            last = errors[-1]
            errors[-1] = InputError(
                last.id, f"{last.what}; and {more} more", where=last.where, fix=last.fix
            )
        first, *others = errors
        first.also = tuple(others)
        raise first


def load(path: Path, model: type[M]) -> M:
    """Read ``path`` and validate it as ``model``. Raises InputError, see `read` and `parse`."""
    return read(path).parse(model)


def read(path: Path) -> Document:
    """Read one YAML file.

    Raises InputError E-MATRIX-READ (cannot be read), E-MATRIX-SIZE (too large, too deep or
    expanding to too much), E-MATRIX-YAML (not valid YAML), E-MATRIX-DUPLICATE (a key twice).
    """
    text = _text(path)
    try:
        root = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        id = "E-MATRIX-SIZE" if isinstance(error, _TooDeep) else "E-MATRIX-YAML"
        raise _broken(path, error, id) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"not valid YAML: {error.reason}"
        raise InputError("E-MATRIX-YAML", what, where=f"{path}:{line}") from None
    if root is None:
        raise InputError("E-MATRIX-YAML", "the file is empty", where=str(path))
    return Document(path, _Plain(path).value(root), root)


def _text(path: Path) -> str:
    try:
        with open_file(path) as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            "E-MATRIX-READ", f"cannot be read: {error.strerror}", where=str(path)
        ) from None
    if len(raw) > MAX_BYTES:
        raise InputError("E-MATRIX-SIZE", f"larger than {MAX_BYTES} bytes", where=str(path))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError("E-MATRIX-YAML", "not UTF-8 text", where=f"{path}:{line}") from None


def _broken(path: Path, error: yaml.MarkedYAMLError, id: str) -> InputError:
    mark = error.problem_mark or error.context_mark
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    context = f" ({error.context})" if error.context else ""
    return InputError(id, f"not valid YAML: {error.problem}{context}", where=where)


class _Plain:
    """Nodes to plain JSON values, counting every value that an alias repeats."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values = 0

    def fail(self, node: yaml.Node, id: str, what: str, fix: str | None = None) -> InputError:
        where = f"{self.path}:{node.start_mark.line + 1}"
        return InputError(id, what, where=where, fix=fix)

    def value(self, node: yaml.Node, depth: int = 0) -> Any:
        self.values += 1
        if self.values > MAX_VALUES or depth > MAX_DEPTH:
            raise self.fail(
                node, "E-MATRIX-SIZE", "expands to too many values", "use fewer or flatter aliases"
            )
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise self.fail(node, "E-MATRIX-YAML", f"the tag {node.tag!r} is not supported")

    def _mapping(self, node: yaml.MappingNode, depth: int) -> Mapping[str, Any]:
        seen: dict[str, yaml.Node] = {}
        result: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                raise self.fail(
                    key, "E-MATRIX-YAML", "merge keys (<<) are not supported", "repeat the entries"
                )
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
                raise self.fail(key, "E-MATRIX-TYPE", "a key must be text", "put it in quotes")
            if key.value in seen:
                first = seen[key.value].start_mark.line + 1
                raise self.fail(
                    key, "E-MATRIX-DUPLICATE", f"key {key.value!r} is already on line {first}"
                )
            seen[key.value] = key
            result[key.value] = self.value(value, depth + 1)
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        tag = node.tag.removeprefix(_TAG)
        if tag == "str":
            return text
        if tag == "null":
            return None
        if tag == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        try:
            if tag == "int":
                return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
            if tag == "float" and math.isfinite(number := float(text)):
                return number
        except ValueError:
            pass
        raise self.fail(node, "E-MATRIX-TYPE", f"{text[:40]!r} is not a usable {tag}")
