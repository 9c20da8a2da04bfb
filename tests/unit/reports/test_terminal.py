from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from orchestrator.reports import terminal
from tests.unit.reports import synthetic


def _render(document: dict[str, Any], **options: Any) -> str:
    stream = io.StringIO()
    terminal.render(document, Console(file=stream, **options), Path("out/report.html"))
    return stream.getvalue()


def _piped(document: dict[str, Any]) -> list[str]:
    return _render(document, width=40).splitlines()


def test_a_pipe_gets_one_whole_plain_line_per_row() -> None:
    document = synthetic.result()
    lines = _piped(document)[1 : len(document["rows"]) + 1]
    for row, line in zip(document["rows"], lines, strict=True):
        cells = re.split(" {2,}", line)
        mark = " (emulated)" if row["emulated"] else ""
        assert cells[:3] == [f"{row['model']}.{row['file']}", row["device"] + mark, row["runtime"]]
    assert not set("".join(_piped(document))) & set("\x1b│┃━─╇")


def test_the_numbers_of_a_row() -> None:
    lines = _piped(synthetic.result())
    line = next(x for x in lines if x.startswith("digits_dwsep.qdq-u8s8") and "haswell" in x)
    assert re.split(" {2,}", line)[3:] == [
        "fail",
        "90.6 % (326/360, 87.1–93.2)",
        "26/3",
        "23.9 % (86/360, 19.8–28.6)",
        "47",
        "21/360",
    ]


def test_a_compiled_file_says_what_the_accelerator_takes_of_it() -> None:
    text = "Edge TPU: 1 partition, 0 operators on the CPU; compiled from int8 (sha256 0123456789ab)"
    lines = _piped(synthetic.result() | {"compiled": {"cnn.edgetpu": {"text": text}}})
    assert f"cnn.edgetpu: {text}" in lines


@pytest.mark.parametrize("options", [{}, {"force_terminal": True, "width": 90}])
def test_a_missing_row_says_so_with_its_reason(options: dict[str, Any]) -> None:
    document = synthetic.result()
    row = next(row for row in document["rows"] if row["status"] == "not_available")
    document["rows"] = [row]
    text = _render(document, no_color=True, **options)
    assert "not available here" in text
    assert "no wheel of ai-edge-litert for Python 3.13 on armv7l" in text


def test_the_verdict_comes_last_with_its_first_reason_first() -> None:
    document = synthetic.result()
    lines = [line for line in _piped(document) if not line.startswith("Next: ")]
    end = [
        "✗ FAIL, partly on emulated devices: qemu-a72, qemu-a53, qemu-haswell, qemu-badboard",
        *(f"  {reason}" for reason in document["reasons"]),
        "Report: out/report.html",
    ]
    assert lines[-len(end) :] == end
    classes = [line for line in lines if line.startswith("class ")]
    assert classes[0] == "class x86-64: pass"
    assert classes[-1] == "class qemu-badboard (emulated): fail", "its reason is the run's first"
    assert classes[-2].startswith("class qemu-haswell (emulated): fail  digits_dwsep.qdq-u8s8@")
    assert lines.index(classes[-1]) < lines.index(end[0])


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive", "error", "timeout"])
def test_every_verdict_has_a_look(verdict: str) -> None:
    document = synthetic.result()
    document["verdict"] = document["rows"][0]["verdict"] = verdict
    document["classes"][0]["verdict"] = verdict
    assert f"{verdict.upper()}, partly on" in _render(document, force_terminal=True)


def test_hardware_only_and_emulation_only_are_told_apart() -> None:
    document = synthetic.result()
    rows = document["rows"]
    document["rows"] = [row for row in rows if not row["emulated"]]
    assert "✗ FAIL" in _piped(document)
    document["rows"] = [row for row in rows if row["device"] == "qemu-a72"]
    assert "✗ FAIL, only on emulated devices: qemu-a72" in _piped(document)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_on_a_terminal_nothing_is_cut(width: int) -> None:
    text = _render(synthetic.result(), force_terminal=True, no_color=True, width=width)
    assert "…" not in text
    joined = re.sub(r"\s", "", text)
    for row in synthetic.result()["rows"]:
        if row["accuracy"]:
            assert f"{row['accuracy']['k']}/360" in joined


def test_no_color_leaves_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1;31m" in _render(synthetic.result(), force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    text = _render(synthetic.result(), force_terminal=True, color_system="standard")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", text)


@pytest.mark.parametrize("options", [{}, {"force_terminal": True, "width": 200}])
def test_names_are_neither_markup_nor_escape_sequences(options: dict[str, Any]) -> None:
    document = synthetic.result()
    document["rows"][0]["device"] = "[red]x[/red]\x1b]0;t\x07"
    document["reasons"] = ["[bold]y\nz"]
    text = _render(document, no_color=True, **options)
    assert "[red]x[/red]\\x1b]0;t\\x07" in text
    assert "[bold]y\\nz" in text


def test_no_rows_at_all_still_ends_in_a_verdict() -> None:
    document = synthetic.result() | {"rows": [], "classes": [], "verdict": "inconclusive"}
    assert "? INCONCLUSIVE" in _piped(document)


def test_the_next_step_is_a_command() -> None:
    document = synthetic.result()
    (step,) = (line for line in _piped(document) if line.startswith("Next: "))
    found = re.fullmatch(r"Next: assay explain (\S+)/(\S+) (\S+)/(\S+) --model (\S+)", step)
    assert found is not None, step
    device, runtime, other, its_runtime, file = found.groups()
    row = next(r for r in document["rows"] if r["id"] == f"{file}@{device}/{runtime}")
    assert row["verdict"] == "fail"
    assert row["reference"] == f"{file}@{other}/{its_runtime}"


def test_rows_that_fail_alike_have_nothing_to_explain() -> None:
    document = synthetic.result()
    for row in document["rows"]:
        if row["vs_reference"]:
            bits = row["vs_reference"]["bit_exact"]
            row["vs_reference"] = {**row["vs_reference"], "bit_exact": {**bits, "k": bits["n"]}}
    assert not [line for line in _piped(document) if line.startswith("Next: ")]


def test_after_trouble_of_the_farm_the_next_step_is_the_log() -> None:
    document = synthetic.result() | {"verdict": "error"}
    (step,) = (line for line in _piped(document) if line.startswith("Next: "))
    run = document["run"]["id"]
    assert f"assay logs {run} " in step
    assert f"assay resume {run} " in step


def test_a_pass_needs_no_next_step() -> None:
    document = synthetic.result()
    document["rows"] = [r for r in document["rows"] if r["verdict"] == "pass"]
    document["verdict"] = "pass"
    assert not [line for line in _piped(document) if line.startswith("Next: ")]
