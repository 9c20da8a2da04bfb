"""The help pages: every command in its group, with a whole first line and an example."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from orchestrator.cli.main import PANELS, app, invoke


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ROOT: Any = typer.main.get_command(app)
COMMANDS = dict(commands(ROOT))
GROUPS = [(), *{(path[0],) for path in COMMANDS if len(path) > 1}]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert invoke([*arguments, "--help"]) == 0
    return capsys.readouterr().out


def test_the_walk_reaches_nested_commands() -> None:
    assert {("run",), ("devices", "check"), ("store", "adopt")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    command = " ".join(path)
    assert re.search(rf"Example: [^\n]*assay {command}\b", shown(capsys, *path)), command


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_no_line_of_a_list_is_cut_at_80_columns(
    group: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = shown(capsys, *group).partition("Options:")[2]
    assert "..." not in listed
    assert max(map(len, listed.splitlines())) <= 80


def test_every_command_is_listed_once_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    page = shown(capsys)
    assert re.findall(r"^([A-Z][a-z ]+):$", page, re.M)[1:] == list(PANELS)
    listed = re.findall(r"^  ([a-z]+) {2,}\S", page, re.M)
    assert sorted(listed) == sorted(n for n, c in ROOT.commands.items() if not c.hidden)
