"""A verdict as Markdown, for pull requests and summaries of CI jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.reports import format as fmt
from orchestrator.reports.headline import available, headline

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!])")


def render(document: Mapping[str, Any]) -> str:
    """The document ``assay.result``: verdict, reasons, a table of rows; a final newline."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    run = document["run"]
    yield f"## {_plain(headline(document))}"
    yield ""
    yield f"Run {_plain(run['id'])}"
    yield ""
    for reason in document["reasons"]:
        yield f"- {_plain(reason)}"
    yield ""
    yield "| model.file | device | runtime | verdict | accuracy (95 % CI) | disagree | max LSB |"
    yield "|---|---|---|---|---|---|---|"
    for row in document["rows"]:
        versus = row["vs_reference"] or {}
        cells = (
            f"{row['model']}.{row['file']}",
            row["device"] + (" (emulated)" if row["emulated"] else ""),
            row["runtime"],
            fmt.words(row["verdict"]) if available(row) else fmt.NOT_AVAILABLE,
            fmt.rate(row["accuracy"], level=False),
            "reference" if row["is_reference"] else fmt.counts(versus.get("disagreement")),
            fmt.number(versus.get("max_lsb")),
        )
        yield f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """``text`` without a meaning in Markdown or HTML, on one line."""
    return _SPECIAL.sub(r"\\\1", fmt.printable(text))
