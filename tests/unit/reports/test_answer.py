"""The answer to a question as text and as CSV."""

from __future__ import annotations

import csv
import io

from rich.console import Console

from orchestrator.reports.sql import as_csv, render

COLUMNS = ["name", "n", "share", "list"]
ROWS: list[tuple[object, ...]] = [
    ("a\x1b[31m", 2, 0.123456789, [1, None]),
    (None, 12345678901, None, {"k": True}),
]


def shown(columns: list[str], rows: list[tuple[object, ...]], width: int, terminal: bool) -> str:
    stream = io.StringIO()
    render(columns, rows, Console(file=stream, width=width, force_terminal=terminal, no_color=True))
    return stream.getvalue()


def test_a_pipe_gets_whole_lines_in_columns() -> None:
    lines = shown(COLUMNS, ROWS, 20, False).splitlines()
    assert lines[0].split() == ["name", "n", "share", "list"]
    assert lines[1] == "a\\x1b[31m  2            0.1235  1, –"
    assert lines[2] == "–          12345678901  –       k yes"


def test_a_terminal_folds_and_cuts_nothing() -> None:
    value = "".join(f"{n:03}" for n in range(30))
    text = shown(["x"], [(value,), ("\x1b[31m",)], 20, True)
    assert value + "\\x1b[31m" in "".join(text.split())


def test_csv_keeps_every_digit_and_null_is_empty() -> None:
    found = list(csv.reader(io.StringIO(as_csv(COLUMNS, ROWS))))
    assert found[0] == COLUMNS
    assert found[1] == ["a\\x1b[31m", "2", "0.123456789", "[1, null]"], "no command in text"
    assert found[2] == ["", "12345678901", "", '{"k": true}']
