"""docs/hardware-status.md: three commands for each kind that awaits hardware, and they exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator.cli.main import app

PAGE = (Path(__file__).parents[2] / "docs" / "hardware-status.md").read_text()
KINDS = {
    title: re.findall(r"^    (assay .*?)(?:  +#.*)?$", block, re.MULTILINE)
    for title, block in re.findall(
        r"^\*\*(.+?)\*\*(.*?)(?=^\*\*|\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
}


@pytest.mark.parametrize(
    "kind", ["Raspberry Pi", "32-bit ARM", "Android", "Coral", "Jetson", "hub"]
)
def test_every_kind_that_awaits_hardware_has_three_commands(kind: str) -> None:
    (commands,) = [found for title, found in KINDS.items() if kind in title]
    assert len(commands) == 3


@pytest.mark.parametrize("line", sorted({c for found in KINDS.values() for c in found}))
def test_the_commands_and_their_options_are_there(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = line.split()[1:]
    while commands := getattr(command, "commands", None):
        command = commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known
