"""Every format says what the document says; a format from outside is one like any other."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from orchestrator.errors import InputError
from orchestrator.reports import formats, junit, markdown
from orchestrator.reports.formats import Format, choose
from orchestrator.reports.headline import available
from tests.unit.reports import synthetic

HOSTILE = 'a\x1b[31m<b>&"|`x`\x00\ud800\u202e\n*y*'


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = synthetic.result()
    return found


def hostile(document: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(document)
    for row in found["rows"]:
        row["device"] = row["device_class"] = HOSTILE
        row["reasons"] = [HOSTILE]
    found["reasons"] = [HOSTILE]
    return found


def outcomes(text: str) -> Counter[str]:
    cases = ElementTree.fromstring(text).iter("testcase")
    return Counter(case[0].tag if len(case) else "passed" for case in cases)


def test_junit_is_green_for_a_pass_alone(document: dict[str, Any]) -> None:
    root = ElementTree.fromstring(junit.render(document))
    found = outcomes(junit.render(document))
    verdicts = Counter(r["verdict"] if available(r) else "skipped" for r in document["rows"])
    assert len(verdicts) > 2, "the document shows little"
    assert found["passed"] == verdicts["pass"] + verdicts["covered-by-class"]
    assert found["skipped"] == verdicts["skipped"]
    assert found["error"] == verdicts["error"] + verdicts["timeout"]
    assert found["failure"] == verdicts["fail"] + verdicts["inconclusive"]
    assert int(root.attrib["tests"]) == len(document["rows"])
    for name in ("failures", "errors", "skipped"):
        assert int(root.attrib[name]) == sum(int(s.attrib[name]) for s in root)
        assert int(root.attrib[name]) == found[name.removesuffix("s")]
    assert {s.attrib["name"] for s in root} == {r["device_class"] for r in document["rows"]}


@pytest.mark.parametrize(
    ("verdict", "tag"),
    [
        *(("pass", "passed"), ("covered-by-class", "passed"), ("fail", "failure")),
        *(("inconclusive", "failure"), ("error", "error"), ("timeout", "error")),
    ],
)
def test_junit_by_verdict(document: dict[str, Any], verdict: str, tag: str) -> None:
    row = next(r for r in document["rows"] if available(r))
    one = {**document, "rows": [{**row, "verdict": verdict, "reasons": ["because"]}]}
    assert outcomes(junit.render(one)) == {tag: 1}


def test_what_devices_say_is_text_in_every_format(document: dict[str, Any]) -> None:
    told = hostile(document)
    root = ElementTree.fromstring(junit.render(told).encode("utf-8"))
    assert '<b>&"|`x`' in root[0].attrib["name"]
    page = markdown.render(told)
    assert "\x1b" not in page
    assert "\u202e" not in page
    cells = [re.split(r"(?<!\\)\|", line) for line in page.splitlines() if line.startswith("|")]
    assert {len(row) for row in cells} == {len(cells[0])}
    assert "\\<b\\>" in page


def test_markdown_has_the_verdict_and_every_row(document: dict[str, Any]) -> None:
    page = markdown.render(document)
    assert page.startswith("## ")
    rows = [line for line in page.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(document["rows"])
    assert page.count("\n- ") == len(document["reasons"])
    assert page == markdown.render(copy.deepcopy(document))


def test_a_format_is_chosen_by_name_then_by_file(tmp_path: Path) -> None:
    assert choose(None, None).name == "html"
    assert choose(None, tmp_path / "x.xml").name == "junit"
    assert choose(None, tmp_path / "x.txt").name == "html"
    assert choose("markdown", tmp_path / "x.xml").name == "markdown"
    with pytest.raises(InputError, match="html, json, junit, markdown") as caught:
        choose("pdf", None)
    assert caught.value.id == "E-REPORT-FORMAT"


@pytest.fixture
def toy() -> Iterator[Format]:
    """A format from outside."""
    yield formats.register(Format("toy", ".toy", lambda document: document["verdict"]))
    del formats.FORMATS["toy"]


def test_a_format_from_outside(toy: Format, document: dict[str, Any], tmp_path: Path) -> None:
    assert choose(None, tmp_path / "x.toy") is toy
    assert choose("toy", None).render(document) == document["verdict"]
    for taken in (toy, Format("other", ".toy", str), Format("html", ".htm", str)):
        with pytest.raises(ValueError, match="is registered"):
            formats.register(taken)
