"""The first line of every report: the verdict, and what it was reached on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.reports.format import MARKS, words


def headline(document: Mapping[str, Any]) -> str:
    """``✗ FAIL`` and, where some rows ran on emulated or stand-in devices, which these are."""
    verdict = document["verdict"]
    line = f"{MARKS[verdict]} {words(verdict).upper()}"
    emulated = emulated_devices(document)
    if not emulated:
        return line
    extent = "only" if all(row["emulated"] for row in document["rows"]) else "partly"
    return f"{line}, {extent} on emulated devices: {', '.join(emulated)}"


def emulated_devices(document: Mapping[str, Any]) -> list[str]:
    """Names of the emulated devices, each once, in the order of the rows."""
    return list(dict.fromkeys(row["device"] for row in document["rows"] if row["emulated"]))


def available(row: Mapping[str, Any]) -> bool:
    """False where the device offers nothing of what the row asks for.

    A row with an answer under one condition is there, though another condition is not.
    """
    told = [cell["status"] for cell in row.get("cells", ())] or [row["status"]]
    return any(status != "not_available" for status in told)
