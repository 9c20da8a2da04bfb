"""`assay agreement` and `assay history` as text: unknown is a dash, names stay text."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from orchestrator.reports import agreement, history

EVIL = "[red]\x1b[31mhost[/red]"


def text(module: Any, document: dict[str, Any]) -> str:
    stream = io.StringIO()
    module.render(document, Console(file=stream, width=200))
    return stream.getvalue()


def test_kappa_with_its_interval_or_a_dash() -> None:
    assert agreement.kappa({"value": 0.9123, "low": 0.5, "high": 1.0}) == "0.912 (0.500–1.000)"
    assert agreement.kappa({"value": None, "low": None, "high": None}) == "–"
    assert agreement.kappa(None) == "–"


def test_a_study_without_a_reference_or_a_pair_says_so() -> None:
    study = {
        "model": EVIL, "file": "int8", "inputs": "digits", "file_sha256": "ab" * 32,
        "raters": [{"attempt": "a", "name": EVIL}], "within": [], "between": [], "passes": [],
        "reference": None, "no_reference": "not signed off yet",
        "against_reference": [], "against_truth": [], "matched": [],
    }  # fmt: skip
    shown = text(
        agreement,
        {
            "runs": ["one"],
            "studies": [study],
            "refused": [{"what": EVIL, "why": "other labels"}],
            "damaged": [{"what": "cell", "error": "gone [E-ARTEFACT-MISSING]"}],
        },
    )
    assert "\x1b" not in shown
    assert "[red]" in shown
    for line in ("no reference: not signed off yet", "other labels", "[E-ARTEFACT-MISSING]"):
        assert line in shown


def test_equal_changes_are_said_once_with_their_number() -> None:
    step = {
        "runtime": "litert", "threads": 1, "kernels": "default", "condition": "clean",
        "run": "second", "identical": True, "different": None,
        "changes": [{"what": "kernel", "before": "6.1", "after": None}],
    }  # fmt: skip
    moved = {
        **step, "identical": False, "changes": [], "kernels": "reference",
        "different": {"k": 3, "n": 1000, "rate": 0.003, "low": 0.0006, "high": 0.0087},
    }  # fmt: skip
    row = {
        "device": EVIL, "device_class": "pi", "emulated": True, "file": "net.int8", "runs": 2,
        "first_unix": 0.0, "last_unix": 60.0, "outcomes": {"ok": 4}, "questions": 2,
        "versions": {"litert": [None, "2.3.0"]}, "asked_again": 2, "unchanged": 1,
        "steps": [step, step, moved],
    }  # fmt: skip
    shown = text(history, {"rows": [row], "damaged": []})
    assert "\x1b" not in shown
    assert "litert ?, 2.3.0" in shown
    assert shown.count("the same bytes (kernel 6.1 → –) [2 questions]") == 1
    assert "net.int8 litert threads 1 reference clean since second: other bytes in 0.3 %" in shown
    assert "nothing that is recorded changed" in shown
