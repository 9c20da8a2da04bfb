"""How a report shows the state of a device: soak, power mode, rails, why a timing is invalid."""

from __future__ import annotations

import io
from typing import Any

import jsonschema
import pytest
from rich.console import Console

from orchestrator.analysis import document, verdict
from orchestrator.reports import format, html, terminal
from tests.unit.reports import synthetic

SOAK = {
    "target_c": 75.0,
    "reached": True,
    "heat_s": 112.4,
    "hold_s": 60.0,
    "inferences": 900,
    "mismatches": 0,
    "max_c": 76.5,
}
WHY = "cpu0 moved between 600000 and 1500000 kHz"


@pytest.fixture
def result() -> dict[str, Any]:
    """One row with a clean, a soak and a power cell; the clean one's timing is invalid."""
    made = synthetic.result()
    row = next(r for r in made["rows"] if r["device"] == "rpi4#1")
    kinds: dict[str, dict[str, Any]] = {
        "clean": {"timing_valid": False},
        "soak:75C": {"soak": SOAK},
        "power:save": {"power": "powersave"},
    }
    row["cells"] = []
    plain = next(a for a in made["attempts"] if a["id"] == row["attempts"][0])
    made["rows"], made["attempts"], made["traces"] = [row], [], made["traces"][:1]
    for condition, told in kinds.items():
        attempt = f"att-{condition}"
        cell = {"cell": f"c-{condition}", "condition": condition, "status": "ok", "error": None}
        row["cells"].append({**cell, "attempt": attempt, "timing_valid": True, **told})
        made["attempts"].append({**plain, "id": attempt, "notes": [], "sensors": {}})
    made["attempts"][0]["notes"] = [WHY]
    made["attempts"][2]["sensors"] = {
        "power/VDD_IN": {"start": 3129.0, "end": None, "max": 9870.0},
        "temp/cpu": {"start": 40.0, "end": 50.0, "max": 55.0},
    }
    made["traces"][0] |= {
        "row": row["id"],
        "attempt": "att-clean",
        "power_mw": {"VDD_IN": [3000.0] * len(made["traces"][0]["t_s"])},
    }
    made["latency"] = {row["id"]: {**made["latency"][row["id"]], "timing_valid": False}}
    made["pairs"], made["fleet"] = [], []
    return made


def test_it_follows_the_schema(result: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(document.schema()).validate(result)
    result["rows"][0]["cells"][1]["soak"] = {"reached": "yes"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(document.schema()).validate(result)


def test_the_page_says_what_heat_and_power_came_to(result: dict[str, Any]) -> None:
    page = html.render(result)
    assert "soak to 75 °C: target reached in 1 min 52 s, hottest 76.5 °C" in page
    assert "0 of 900 outputs differ from the first pass" in page
    assert "power mode powersave" in page
    assert "<td>VDD_IN</td><td>3.13</td><td>–</td><td>9.87</td>" in page
    assert "<strong>Power</strong>" in page, "a plot of its own"


def test_the_page_says_why_a_timing_is_invalid(result: dict[str, Any]) -> None:
    page = html.render(result)
    assert f"(timing invalid: {WHY})" in page
    assert page.count(WHY) == 3, "with the row, with the trace, with the attempt"


def test_without_rails_there_is_no_empty_table() -> None:
    assert 'id="power"' not in html.render(synthetic.result())


def test_the_terminal_says_why_a_timing_is_invalid(result: dict[str, Any]) -> None:
    def text() -> str:
        stream = io.StringIO()
        terminal.render(result, Console(file=stream, width=100))
        return stream.getvalue()

    line = f"timing invalid on rpi4#1 in 1 cell(s): {WHY}"
    assert line in text()
    result["rows"][0]["cells"][1]["timing_valid"] = False
    assert "in 2 cell(s): " in text()
    assert "(and 1 other reasons)" in text()
    result["rows"][0]["emulated"] = True
    assert "timing invalid" not in text(), "of an emulated device that is no news"


def test_states_in_words() -> None:
    assert format.state({"soak": None, "power": None}) == format.state({}) == "–"
    blind = format.state({"soak": {**SOAK, "reached": False, "max_c": None}})
    assert "target NOT reached in 1 min 52 s, temperature unknown" in blind


def test_an_attempts_notes_and_sensors_come_from_its_result() -> None:
    result = {
        "timing_notes": ["started at 80 °C"],
        "telemetry": {
            "reasons": [WHY],
            "start": {"temp/cpu": 40.0, "freq/cpu0": 1.0, "power/in": None},
            "end": {"temp/cpu": 45.0, "freq/cpu0": 2.0},
            "max": {"temp/cpu": 50.0, "freq/cpu0": 2.0, "power/in": None},
        },
        "notes": ["temperature unknown"],
        "clock_offset_s": 3600.0,
    }
    assert verdict._notes(result) == [
        "started at 80 °C",
        WHY,
        "temperature unknown",
        "device clock off by +3,600 s",
    ]
    assert verdict._sensors(result) == {
        "power/in": {"start": None, "end": None, "max": None},
        "temp/cpu": {"start": 40.0, "end": 45.0, "max": 50.0},
    }
    assert verdict._notes({}) == []
    assert verdict._sensors({}) == {}
