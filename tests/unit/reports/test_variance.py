"""`assay variance`: equal rows once, in groups; then only the pairs that differ."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from orchestrator.reports.variance import render, same_bits
from tests.unit.reports.synthetic import result


def pair(a: str, b: str, rate: float) -> dict[str, Any]:
    return {"a": a, "b": b, "bit_exact_rate": rate}


def text(document: dict[str, Any]) -> str:
    stream = io.StringIO()
    render(document, Console(file=stream, width=200))
    return stream.getvalue()


def test_groups_follow_the_order_of_rows() -> None:
    pairs = [
        pair("a", "b", 0.5), pair("a", "c", 1.0), pair("a", "d", 0.9),
        pair("b", "c", 0.5), pair("d", "b", 1.0), pair("c", "d", 0.9),
    ]  # fmt: skip
    assert same_bits(["a", "b", "c", "d"], pairs) == [["a", "c"], ["b", "d"]]
    assert same_bits(["a", "b"], [pair("a", "b", 0.999999)]) == []
    assert same_bits(["a"], []) == []


def test_every_pair_is_said_once_or_stands_for_its_group() -> None:
    document = result()
    lines = text(document).splitlines()
    for spread in document["fleet"]:
        head = f"{spread['model']}.{spread['file']} on {spread['inputs']}: "
        assert sum(line.startswith(head) for line in lines) == 1
    shown = {line.split(":")[0].strip() for line in lines if " / " in line}
    differing = {
        f"{p['a'].partition('@')[2]} / {p['b'].partition('@')[2]}"
        for p in document["pairs"]
        if p["bit_exact_rate"] != 1.0
    }
    assert shown
    assert shown <= differing
    for line in (x for x in lines if " / " in x):
        assert "max LSB" in line
        assert "decided differently" in line


def test_rows_without_an_answer_are_not_counted_as_compared() -> None:
    document = result()
    first = document["fleet"][0]
    key = (first["model"], first["file"], first["inputs"])
    mine = [r for r in document["rows"] if (r["model"], r["file"], r["inputs"]) == key]
    head = f"{first['model']}.{first['file']} on {first['inputs']}: "
    for answered, said in (
        (len(mine), f"{len(mine)} rows, "),
        (2, f"2 of {len(mine)} rows answered, "),
        (["a", "b", "c"], f"3 of {len(mine)} rows answered, "),
    ):
        first["rows"] = answered
        assert any(line.startswith(head + said) for line in text(document).splitlines())


def test_each_file_is_shown_with_its_lineage() -> None:
    document = result()
    first = document["fleet"][0]
    told = {"verdict": "unrelated", "reason": "other \x1b[31mweights"}
    document["lineage"] = {f"{first['model']}.{first['file']}": told}
    lines = text(document).splitlines()
    where = [i for i, line in enumerate(lines) if line.startswith("  lineage ")]
    heads = [i for i, line in enumerate(lines) if f"{first['model']}.{first['file']} on " in line]
    assert [i - 2 for i in where] == heads
    assert lines[where[0]] == "  lineage unrelated: other \\x1b[31mweights"


def test_a_pair_is_shown_with_its_cause() -> None:
    document = result()
    plain = next(line for line in text(document).splitlines() if " / " in line)
    names = plain.split(":")[0].split(" / ")
    found = next(
        p
        for p in document["pairs"]
        if [p[s].partition("@")[2] for s in "ab"] == [n.strip() for n in names]
    )
    cause = {"mechanism": "plan", "factors": ["core"], "confidence": "likely"}
    document["causes"] = [{"a": found["a"], "b": found["b"], **cause}]
    assert f"{plain}; plan × core (likely)" in text(document).splitlines()
    document["causes"] = [{"a": found["a"], "b": found["b"], "error": "gone [E-ARTEFACT-MISSING]"}]
    assert f"{plain}; cause not told: gone [E-ARTEFACT-MISSING]" in text(document).splitlines()
    document["causes"] = [{"a": found["a"], "b": found["b"], **cause}]
    document["causes"][0]["factors"] = None
    assert f"{plain}; plan × unknown (likely)" in text(document).splitlines()


def test_hostile_names_are_printed_as_text() -> None:
    document = result()
    old = document["rows"][0]["id"]
    evil = old.partition("@")[0] + "@[red]\x1b[31mhost[/red]/ort"
    for row in document["rows"]:
        row["id"] = evil if row["id"] == old else row["id"]
    for found in document["pairs"]:
        for side in ("a", "b"):
            found[side] = evil if found[side] == old else found[side]
    shown = text(document)
    assert "\x1b" not in shown
    assert "[red]" in shown
