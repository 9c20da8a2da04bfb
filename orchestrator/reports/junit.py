"""A verdict as JUnit XML, for CI systems: a suite per device class, a test case per row.

Only a pass is green. A row that failed or that shows too little to pass is a failure, of that type;
one that the farm could not run is an error; one that its device does not offer is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from orchestrator.reports.format import printable
from orchestrator.reports.headline import available, headline

_PASSED = ("pass", "covered-by-class")
_ERRORS = ("error", "timeout")
_FORBIDDEN = re.compile("[^\\t\\n\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
"""What XML 1.0 (section 2.2) has no way to write."""


def render(document: Mapping[str, Any]) -> str:
    """The document ``assay.result`` as text, UTF-8 when encoded, with a final newline."""
    root = ElementTree.Element("testsuites", name=_text(f"assay {document['run']['id']}"))
    suites: dict[str, list[Mapping[str, Any]]] = {}
    for row in document["rows"]:
        suites.setdefault(row["device_class"], []).append(row)
    for name, rows in suites.items():
        _suite(root, name, rows, headline(document))
    totals = [suite.attrib for suite in root]
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(each[count]) for each in totals)))
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _suite(
    root: ElementTree.Element, name: str, rows: Sequence[Mapping[str, Any]], verdict: str
) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=_text(name), tests=str(len(rows)))
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", name="verdict", value=_text(verdict))
    counts = dict.fromkeys(("failure", "error", "skipped"), 0)
    for row in rows:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_text(row["device_class"]), name=_text(row["id"])
        )
        if (outcome := _outcome(row)) is None:
            continue
        counts[outcome] += 1
        reasons = [_text(reason) for reason in row["reasons"]]
        told = ElementTree.SubElement(case, outcome, message=reasons[0] if reasons else "")
        if outcome != "skipped":
            told.set("type", row["verdict"])
        told.text = "\n".join(reasons)
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    suite.set("skipped", str(counts["skipped"]))


def _outcome(row: Mapping[str, Any]) -> str | None:
    if not available(row):
        return "skipped"
    if row["verdict"] in _PASSED:
        return None
    return "error" if row["verdict"] in _ERRORS else "failure"


def _text(text: str) -> str:
    return _FORBIDDEN.sub("?", printable(text))
