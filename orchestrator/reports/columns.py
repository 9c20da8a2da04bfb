"""A small table: one that fits the screen on a terminal, plain columns elsewhere; and a line."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.reports.format import printable


def columns(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """In a pipe columns stand two spaces apart, one line per row, nothing cut."""
    lines = [[printable(cell) for cell in row] for row in rows]
    if console.is_terminal:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for line in lines:
            table.add_row(*map(Text, line))
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    for line in [list(headings), *lines]:
        padded = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        console.print(Text(padded.rstrip()), soft_wrap=True)


def line(console: Console, text: str) -> None:
    """One line as it is: no markup, no wrapping."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
