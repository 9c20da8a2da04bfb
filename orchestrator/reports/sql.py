"""The answer to an `assay sql` question, for people, and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.reports import format as fmt

FORMULA = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet begins a formula with, in either width, and what it skips before one."""


def render(columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Console) -> None:
    """On a terminal a table that folds what is too wide; elsewhere a line per row, nothing cut."""
    heads = [fmt.printable(name) for name in columns]
    cells = [[fmt.printable(_text(value)) for value in row] for row in rows]
    if console.is_terminal:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for name in heads:
            table.add_column(Text(name), overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in [heads, *cells]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """RFC 4180 with a heading; null is an empty field, numbers in full, lists and maps as JSON.

    Text that a spreadsheet would take for a formula begins with an apostrophe, and control
    characters are spelt out: text comes from devices.
    """
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow([_harmless(name) for name in columns])
    writer.writerows([_field(value) for value in row] for row in rows)
    return stream.getvalue()


def _text(value: Any) -> str:
    return fmt.number(value) if not isinstance(value, str) else value


def _field(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _harmless(value)
    return json.dumps(value) if isinstance(value, list | dict) else value


def _harmless(text: str) -> str:
    shown = fmt.printable(text)
    return f"'{shown}" if text[:1] in FORMULA else shown
