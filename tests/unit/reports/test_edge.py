"""What a device says of itself reaches terminals, CSV and pages without commands in it."""

from __future__ import annotations

import csv
import io
import json

import pytest

from orchestrator.cli.options import notice, print_data, print_text
from orchestrator.errors import InfraError
from orchestrator.reports.format import CONTROL, printable
from orchestrator.reports.jsonout import dumps
from orchestrator.reports.sql import as_csv

EVIL = [
    "\x1b]0;owned\x07",  # sets a window's title
    "\x1b[2J\x1b[1;1Hall is well",
    "\x9b31m",  # C1: what 8-bit terminals take for ESC [
    "a\rb",
    "tab\there",
    "\u202egnp.exe",  # reads backwards
    "\u2066hidden\u2069",
    "line\u2028line",
    "\x00",
    "\ud800",
    "\x7f",
]


@pytest.mark.parametrize("text", EVIL)
def test_no_line_for_people_holds_a_command(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_text(f"before {text} after\nnext")
    notice(f"before {text} after")
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert len(shown.err.splitlines()) == 1
    for stream in (shown.out, shown.err):
        assert not CONTROL.search(stream)
        assert "before" in stream
        assert "after" in stream
    assert not CONTROL.search(printable(text))
    assert "\n" not in printable(f"{text}\n{text}")


@pytest.mark.parametrize("text", EVIL)
def test_json_says_it_without_sending_it(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = dumps({"device": text, "list": [text]})
    assert not CONTROL.search(told)
    assert json.loads(told) == {"device": text, "list": [text]}
    print_data(told)
    assert json.loads(capsys.readouterr().out)["device"] == text


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "=cmd|'/c calc'!A1"],
)
def test_a_spreadsheet_finds_no_formula(text: str) -> None:
    told = as_csv([text, "n"], [(text, -1), ("plain", -1.5)])
    head, row, plain = csv.reader(io.StringIO(told))
    assert head[0].startswith("'")
    assert row[0].startswith("'")
    assert not CONTROL.search(told.replace("\r\n", "\n"))
    assert (row[1], plain) == ("-1", ["plain", "-1.5"]), "numbers are numbers"


@pytest.mark.parametrize("text", EVIL)
def test_an_error_is_one_line_without_commands(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.cli.main import _tell

    _tell(f"assay: {InfraError('E-LINK', f'said {text} and left', where='pi')}")
    err = capsys.readouterr().err
    assert not CONTROL.search(err)
    assert err.rstrip("\n").endswith("[E-LINK]")
