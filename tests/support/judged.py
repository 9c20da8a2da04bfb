"""A finished run as tests ask about it: its document, its attempts, the bytes that came back."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.store.database import Store
from orchestrator.store.records import AttemptInfo
from tests.support.cli import Done

EXITS = {"pass": 0, "fail": 1, "error": 3, "timeout": 4, "inconclusive": 5}
"""As README promises them, not as the code has them."""


@dataclass(frozen=True)
class Attempt:
    cell: str
    device: str
    runtime: str
    condition: str
    info: AttemptInfo
    result: dict[str, Any]
    environment: dict[str, Any]


class Judged:
    """``done``: the `assay` that printed the document (--json) of the newest run in ``store``."""

    def __init__(self, done: Done, store: Path) -> None:
        assert done.out, done.err
        self.done, self.store = done, store
        self.document: dict[str, Any] = done.json
        self.verdict: str = self.document["verdict"]
        self.reasons: list[str] = self.document["reasons"]
        self.rows: dict[str, dict[str, Any]] = {r["id"]: r for r in self.document["rows"]}
        self.classes = {c["device_class"]: c for c in self.document["classes"]}
        with Store.open(store, readonly=True) as opened:
            run = self.document["run"]["id"]
            attempts = {a.id: a for a in opened.attempts(run)}
            self.attempts = {
                c.id: _attempt(opened, c.id, c.unit or "", c.runtime, c.condition, attempts)
                for c in opened.cells(run)
                if c.attempt is not None and c.outcome == "ok"
            }

    def gate(self, row: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(g for g in self.rows[row]["gates"] if g["gate"] == name)
        return found

    def pair(self, a: str, b: str) -> dict[str, Any]:
        """The comparison of two rows of one model file, whichever comes first."""
        found: dict[str, Any] = next(
            p for p in self.document["pairs"] if {p["a"], p["b"]} == {a, b}
        )
        return found

    def output(self, cell: str) -> NDArray[Any]:
        """The first output tensor of a cell, [samples, ...], as the device sent it."""
        blob = self.attempts[cell].info.artefacts["output-0"]
        with Store.open(self.store, readonly=True) as opened:
            data = opened.artefacts.read(blob.sha256)
        found: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return found

    def isa(self, device: str) -> set[str]:
        return set(self._some(device).environment["isa_flags"])

    def machine(self, device: str) -> str:
        return str(self._some(device).environment["machine"])

    def _some(self, device: str) -> Attempt:
        return next(a for a in self.attempts.values() if a.device == device)


def _attempt(
    store: Store,
    cell: str,
    device: str,
    runtime: str,
    condition: str,
    attempts: dict[str, AttemptInfo],
) -> Attempt:
    (info,) = (a for a in attempts.values() if a.cell == cell and a.state == "ok")
    assert info.result is not None, cell
    assert info.environment is not None, cell
    environment = store.environment_data(info.environment)
    return Attempt(cell, device, runtime, condition, info, info.result, environment)
