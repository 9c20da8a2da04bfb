from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from orchestrator.analysis import document
from orchestrator.reports import charts, html, jsonout, terminal
from orchestrator.variance.lattice import Output
from tests.unit.reports import synthetic
from tests.unit.signoff import build

VOID = {"meta", "br", "hr", "img", "input", "link"}


class _Page(HTMLParser):
    """Elements, attributes and text of a page; complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page_text() -> str:
    return html.render(synthetic.result())


@pytest.fixture(scope="module")
def page(page_text: str) -> _Page:
    return _Page(page_text)


def test_the_page_needs_nothing_but_itself(page: _Page, page_text: str) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "use", "base", "form"}
    for _, attributes in page.elements:
        assert not {"src", "srcset", "xlink:href", "style"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?:|@import|url\(", page_text)


def test_links_lead_somewhere_and_ids_are_unique(page: _Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for a in page.all("a")} <= set(ids)


def test_tables_have_captions_and_charts_have_titles(page: _Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") > 20
    spoken = [attributes for attributes in page.all("svg") if attributes.get("role") == "img"]
    # The page's own <title> is the one more.
    assert len(spoken) + 1 == tags.count("title") > 60
    assert all(attributes.get("scope") for attributes in page.all("th"))


def test_the_first_line_names_the_verdict_and_the_emulated_devices(page: _Page) -> None:
    body = " ".join("".join(page.text).split())
    start = body.index("✗ FAIL, partly on emulated devices: qemu-a72, qemu-a53, qemu-haswell")
    assert start < body.index("Device classes")


def test_every_row_gate_and_attempt_is_there(page: _Page) -> None:
    result = synthetic.result()
    text = "".join(page.text)
    for row in result["rows"]:
        assert row["id"] in text
    for attempt in result["attempts"]:
        assert attempt["id"] in text
    assert text.count("not available here") >= 2
    assert "no wheel of ai-edge-litert for Python 3.13 on armv7l" in text
    assert "rpi4#1: link lost after 12 s [E-LINK]" in text
    assert "95 % CI" in text


def test_emulated_traces_are_labelled_and_unreadable_sensors_said_so(page: _Page) -> None:
    text = "".join(page.text)
    assert text.count("emulated: says nothing about speed or heat") == 4
    assert text.count("timing invalid: the clock moved") >= 1
    assert text.count("not readable on this device") == 1


def test_the_heat_map_shows_counts_with_an_empty_diagonal(page_text: str) -> None:
    start = page_text.index(
        '<table class="heat">', page_text.index("digits_dwsep.qdq-u8s8</strong>")
    )
    table = page_text[start : page_text.index("</table>", start)]
    lines = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in table.split("<tr>")[2:]]
    assert [line[i] for i, line in enumerate(lines)] == [""] * 8
    assert lines[0][6] == lines[6][0] == "21/360<small>max 47 LSB</small>"
    assert lines[0][3] == "0/360<small>bytes equal</small>"
    assert 'class="h4" title="digits_dwsep.qdq-u8s8@host/onnxruntime and' in table


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}\x1b[31m"


def _spoilt() -> dict[str, Any]:
    result = synthetic.result()
    fixed = {"verdict", "status", "emulated", "outcome"}

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: v if k in fixed else walk(v) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(item) for item in value]
        return f"{value}{EVIL}" if isinstance(value, str) else value

    spoilt: dict[str, Any] = walk(result)
    spoilt["latency"] = {f"{row}{EVIL}": n for row, n in result["latency"].items()}
    for trace in spoilt["traces"]:
        for part in ("temp_c", "freq_khz"):
            trace[part] = {f"{name}{EVIL}": values for name, values in trace[part].items()}
    return spoilt


def test_names_cannot_break_out_of_text_attributes_or_charts() -> None:
    text = html.render(_spoilt())
    page = _Page(text)
    clean = _Page(html.render(synthetic.result()))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in clean.elements]
    assert [sorted(a) for _, a in page.elements] == [sorted(a) for _, a in clean.elements]
    assert "49\\x1b" not in text
    assert "\x1b" not in text
    assert any("<script>alert(1)</script>" in (a.get("title") or "") for a in page.all("td"))


def test_a_stored_document_renders_the_same(page_text: str) -> None:
    stored = json.loads(jsonout.dumps(synthetic.result()))
    again = _Page(html.render(stored))
    # Stored objects have sorted keys: facts and zones may change places, nothing else may.
    assert sorted("".join(again.text)) == sorted("".join(_Page(page_text).text))
    assert "plannedokmodelerror" in re.sub(r"\s", "", "".join(again.text))


def test_the_histogram_is_in_numeric_order() -> None:
    stored = json.loads(jsonout.dumps(synthetic.result()))
    text = re.sub(r"\s", "", "".join(_Page(html.render(stored)).text))
    assert "LSB01210>255elements2100124117193" in text


def test_what_the_sign_off_really_says_renders_and_follows_the_schema() -> None:
    broken = (Output("logits", np.full((1000, 2), np.inf, np.float32)),)
    signed = build.decide(
        build.device("ref"),
        build.device("a", build.codes(flipped=40, by=1)),
        build.clean("b", outputs=broken),
        build.failed("c"),
        build.failed("d", "not_available"),
        build.device("q", emulated=True),
        policy_=build.policy(accept_emulated=True),
    ).to_json()
    base = synthetic.result()
    made = document.build(base["run"], signed, {"planned": 6}, {}, [], [])
    jsonschema.Draft202012Validator(document.schema()).validate(made)
    text = "".join(_Page(html.render(made)).text)
    assert all(row["id"] in text for row in signed["rows"])
    assert all(reason in text for row in signed["rows"] for reason in row["reasons"])
    plain = io.StringIO()
    terminal.render(made, Console(file=plain))
    assert "not available here" in plain.getvalue()


def test_an_empty_run_is_still_a_page() -> None:
    result = synthetic.result() | {
        "verdict": "inconclusive",
        "rows": [],
        "classes": [],
        "pairs": [],
        "fleet": [],
        "latency": {},
        "traces": [],
        "attempts": [],
        "reasons": ["the selection is empty"],
    }
    text = "".join(_Page(html.render(result)).text)
    assert "? INCONCLUSIVE" in text
    assert "the selection is empty" in text
    assert "No telemetry was recorded." in text


def test_unknown_numbers_are_dashes() -> None:
    result = synthetic.result(nets=("digits_cnn",))
    empty = {"k": 0, "n": 0, "rate": None, "low": None, "high": None}
    for row in result["rows"]:
        row |= {"accuracy": None, "fp32": None, "vs_reference": None, "repeat": None, "gates": []}
    for pair in result["pairs"]:
        pair |= {"bit_exact_rate": None, "max_lsb": None, "disagreement": None, "near_tie": None}
    result["fleet"] = [
        entry | {"instability": empty, "unanimity": None, "worst_pair": None}
        for entry in result["fleet"]
    ]
    for attempt in result["attempts"]:
        attempt |= {"ended_unix": None, "outcome": None, "device": None, "environment": None}
    page = html.render(result)
    assert "<td>–</td><td>1</td><td>–</td>" in page, "device, number and outcome of an attempt"
    text = "".join(_Page(page).text)
    assert "None" not in text
    assert "0.0 %" not in text
    assert "No accuracy" in text


def test_two_hundred_rows_stay_a_file_that_a_ticket_accepts() -> None:
    devices = tuple((f"rpi4#{i}", "rpi4", False) for i in range(25))
    rows = len((result := synthetic.result(devices=devices))["rows"])
    assert rows == 200
    row = next(iter(result["traces"]))
    result["traces"] = [row | {"row": r["id"]} for r in result["rows"]]
    assert len(html.render(result)) < 4_000_000


@pytest.mark.parametrize(
    ("fraction", "step"),
    [(None, None), (0.0, 0), (1e-6, 1), (0.005, 1), (0.0051, 2), (0.05, 3), (0.2, 4), (1.0, 5)],
)
def test_heat_steps(fraction: float | None, step: int | None) -> None:
    assert charts.heat_step({"rate": fraction}) == step
    assert charts.heat_step(None) is None
    assert len(charts.HEAT_LABELS) == 6


def test_a_line_has_gaps_and_lone_points_are_dots() -> None:
    drawn = charts.plot(
        "T", "°C", [0, 1, 2, 3, 4, 5], {"z": [1.0, 2.0, None, 3.0, None, None]}, "5 s"
    )
    (line,) = drawn.lines
    assert re.findall("[MLh]", line.path) == ["M", "L", "M", "h"]
    assert (drawn.low, drawn.high, line.range) == ("1", "3", "1 to 3")


def test_equal_series_are_one_line_and_unreadable_ones_none() -> None:
    same: list[float | None] = [1.0, 1.0]
    drawn = charts.plot("C", "GHz", [0, 1], {"c0": same, "c1": same, "c2": [None, None]}, "1 s")
    assert [line.name for line in drawn.lines] == ["c0 … c1 (2)"]
    assert charts.plot("C", "GHz", [0], {"c2": [None]}, "1 s").lines == []


def test_a_row_far_below_does_not_squeeze_the_others() -> None:
    parent, good, bad = synthetic.rate(350), synthetic.rate(348), synthetic.rate(40)
    axis = charts.rate_axis([good, bad], [parent], 400)
    assert 0.9 < axis.low < good["low"]
    assert axis.at(bad["rate"]) < 0
    assert charts.rate_axis([bad, good], [], 400).low < bad["low"]
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks())
    assert 2 <= len(axis.ticks()) <= 7
