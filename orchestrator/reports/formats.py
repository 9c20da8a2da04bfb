"""The formats of a run's report. `register` takes further ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.reports import html, jsonout, junit, markdown

DEFAULT = "html"


@dataclass(frozen=True)
class Format:
    """``suffix``: of its files. ``render``: a verdict's document as text, the same each time."""

    name: str
    suffix: str
    render: Callable[[Mapping[str, Any]], str]


FORMATS: dict[str, Format] = {}
"""Every format by its name."""


def register(format: Format) -> Format:
    """Make a format known. Raises ValueError for a name or suffix that is taken."""
    if any(format.name == f.name or format.suffix == f.suffix for f in FORMATS.values()):
        raise ValueError(f"a report format {format.name!r} or {format.suffix!r} is registered")
    FORMATS[format.name] = format
    return format


def choose(name: str | None, out: Path | None) -> Format:
    """By ``name``, else by the suffix of ``out``, else HTML. Raises InputError E-REPORT-FORMAT."""
    if name is None:
        suffix = out.suffix if out else ""
        return next((f for f in FORMATS.values() if f.suffix == suffix), FORMATS[DEFAULT])
    if name not in FORMATS:
        raise InputError(
            "E-REPORT-FORMAT",
            f"there is no report format {name!r:.40}",
            fix=f"one of {', '.join(FORMATS)}",
        )
    return FORMATS[name]


register(Format(DEFAULT, ".html", html.render))
register(Format("json", ".json", jsonout.dumps))
register(Format("junit", ".xml", junit.render))
register(Format("markdown", ".md", markdown.render))
