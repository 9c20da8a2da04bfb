"""What a verdict counts is what it says it counts, in every rendering of it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from orchestrator.analysis.document import build
from orchestrator.reports import html, terminal
from orchestrator.reports.headline import available
from orchestrator.signoff.result import SignOff
from orchestrator.variance.observation import Observation
from tests.unit.signoff.build import clean, codes, decide, device, powered, shuffled, soaked

CLASS: dict[str, Any] = {"device_class": "pi"}


def units(kind: str, count: int) -> list[Observation]:
    """So many rows of one class that end in one way; the reference is of a class of its own."""
    found: list[Observation] = []
    for i in range(count):
        name = f"{kind}-{i}"
        if kind == "pass":
            found += device(name, **CLASS)
        elif kind == "fail":
            found += device(name, codes(flipped=400), **CLASS)
        elif kind == "inconclusive":
            found.append(clean(name, **CLASS))  # no repeats: G2 has nothing to go by
        else:
            found.append(clean(name, status=kind, outputs=(), file_sha256="", **CLASS))
    return found


def signed(**kinds: int) -> SignOff:
    return decide(*device("ref"), *(o for kind, n in kinds.items() for o in units(kind, n)))


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({"fail": 7, "inconclusive": 2, "not_available": 1},
         "fail: 7 of 10 rows (2 inconclusive, 1 not available): "),
        ({"fail": 7, "pass": 3}, "fail: 7 of 10 rows (3 pass): "),
        ({"fail": 1}, "fail: 1 of 1 row: "),
        ({"infra_error": 2, "timeout": 1, "pass": 4, "not_available": 3},
         "error: 2 of 10 rows (1 timeout, 4 pass, 3 not available): "),
        ({"inconclusive": 2, "not_available": 3, "pass": 1},
         "inconclusive: 5 of 6 rows, 3 of them not available (1 pass): "),
        ({"not_available": 3, "pass": 1}, "inconclusive: 3 of 4 rows, not available (1 pass): "),
        ({"cancelled": 1, "pending": 1, "pass": 1}, "inconclusive: 2 of 3 rows (1 pass): "),
    ],
)  # fmt: skip
def test_rows_are_counted_under_their_own_verdict(kinds: dict[str, int], said: str) -> None:
    found = signed(**kinds)
    (line,) = [r for r in found.reasons if r.startswith("pi: ")]
    assert line.startswith(f"pi: {said}")
    document = build({"id": "r", "name": "n", "created_unix": 0.0, "state": "done",
                      "matrix_sha256": "0" * 64}, found.to_json(), {}, {}, (), ())  # fmt: skip
    assert line in document["reasons"]
    console = Console(file=io.StringIO(), width=400)
    terminal.render(document, console)
    assert isinstance(console.file, io.StringIO)
    assert line in console.file.getvalue()
    assert line in html.render(document).replace("&#39;", "'").replace("&gt;", ">")


def test_a_class_that_passes_counts_its_rows() -> None:
    assert signed(**{"pass": 1}).reasons == (
        "pi: pass: 1 row passed every gate that applies",
        "ref: pass: 1 row passed every gate that applies",
    )


@pytest.mark.parametrize(
    ("states", "there"),
    [(("ok", "not_available"), True), (("not_available",) * 2, False), (("ok", "ok"), True)],
)
def test_a_row_with_an_answer_is_not_shown_as_absent(states: Sequence[str], there: bool) -> None:
    """Its power mode is not there: the row that fails a gate fails it all the same."""
    bad = codes(flipped=400)
    cells = [
        clean("pi", bad) if states[0] == "ok" else clean("pi", status=states[0], outputs=()),
        powered("pi", bad) if states[1] == "ok" else powered("pi", status=states[1], outputs=()),
    ]
    (row,) = [r for r in decide(*device("ref"), *cells).to_json()["rows"] if r["device"] == "pi"]
    assert available(row) is there
    assert row["verdict"] == ("fail" if there else "inconclusive")


@pytest.mark.parametrize(
    ("cells", "observed", "n"),
    [
        ([soaked(q=codes(8, by=1), mismatches=2)], 10, 908),
        ([powered(q=codes(by=1))], 1000, 1000),
        ([shuffled(q=codes(by=1), same=False)], 1001, 1001),
        ([shuffled()], None, 1001),
    ],
)
def test_a_repeatability_gate_counts_faults_of_what_was_compared(
    cells: list[Observation], observed: float | None, n: int
) -> None:
    found = decide(*device("ref"), clean("rpi4"), *cells).to_json()
    (row,) = [r for r in found["rows"] if r["device"] == "rpi4"]
    (gate,) = [g for g in row["gates"] if g["gate"] == "G2"]
    assert (gate["observed"], gate["n"]) == (observed, n)
    assert all(int(k) <= int(m) for k, m in re.findall(r"(\d+) of (\d+)", gate["reason"]))
