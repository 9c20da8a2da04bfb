"""Views of evidence by hand: other tasks, lone rows, rows that do not fit, and how they read."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.analysis.rows_alike import alike
from orchestrator.analysis.rows_groups import grouped
from orchestrator.analysis.rows_load import Loaded, set_of
from orchestrator.analysis.rows_pairs import paired
from orchestrator.analysis.rows_slices import sliced
from orchestrator.reports.views import render
from orchestrator.signoff.case import cases
from orchestrator.variance.observation import Observation, Output, Truth
from orchestrator.variance.tasks import Regression, Task
from tests.unit.signoff.build import LATTICE, clean, codes, outputs, truth
from tests.unit.variance.arrays import f32

RUN: dict[str, Any] = {"id": "r", "name": "by hand", "state": "done"}


def loaded(*observations: Observation, known: Truth | None = None) -> Loaded:
    t = known or truth(8, fp32=None)
    rows = [(c, c.answers) for c in cases(observations, {("net", "test"): t}) if c.answers]
    return Loaded(RUN, (set_of(("net", "int8", "test", "ab"), rows, t),), ())


def task_of(task: Task, values: Any) -> Loaded:
    t = truth(len(values), task=task, labels=None, fp32=None)
    return loaded(*(clean(d, values + by) for d, by in (("a", 0), ("b", 1))), known=t)


def text(document: dict[str, Any]) -> str:
    json.dumps(document, allow_nan=False)
    stream = io.StringIO()
    render(document, Console(file=stream, width=200))
    return stream.getvalue()


def test_a_lone_row_has_numbers_and_no_spread() -> None:
    document = grouped(loaded(clean("a", codes(8))), "class")
    (one,) = document["sets"]
    (group,) = one["groups"]
    assert (group["instability"], group["unanimity"], group["worst_pair"]) == (None,) * 3
    assert one["rows"][0]["accuracy"]["k"] == 8
    assert one["fp32"] is None
    shown = text(document)
    assert "8/8" in shown
    assert "instability" not in shown


def test_every_view_says_what_a_loss_against_the_parent_means() -> None:
    found = loaded(clean("a", codes(8)), clean("b", codes(8)), known=truth(8))
    told = {"verdict": "unrelated", "reason": "other weights"}
    sets = tuple(replace(s, lineage=told) for s in found.sets)
    sets = tuple(replace(s, truth=replace(s.truth, slices={"x": np.arange(8) % 2})) for s in sets)
    for s, lines in ((sets, 1), (tuple(replace(s, lineage=None) for s in sets), 0)):
        known = replace(found, sets=s)
        views = grouped(known, "device"), sliced(known), paired(known, "a", "b"), alike(known)
        for view in views:
            assert [one["lineage"] for one in view["sets"]] == [told if lines else None]
            assert text(view).count("\n  lineage unrelated: other weights\n") == lines


def test_regression_has_pairs_and_groups_without_classes() -> None:
    found = task_of(Regression(0.6), codes(8))
    (one,) = grouped(found, "device")["sets"]
    for row in one["rows"]:
        assert row["head"] == "unclear"
        assert (row["confidence"], row["calibration"], row["entropy"]) == (None,) * 3
    assert one["fleet"]["unanimity"]["k"] == 8
    assert one["fleet"]["vote_entropy"] is None
    document = paired(found, "a", "b")
    (pair,) = document["sets"][0]["pairs"]
    assert (pair["max_lsb"], pair["kappa"], pair["confidences"]) == (1, None, None)
    assert pair["real"]["max_abs"] == LATTICE[0]
    assert "real units, a - b" in text(document)
    text(grouped(found, "runtime"))


def test_rows_of_other_lengths_do_not_fit_and_are_said() -> None:
    t = truth(8, labels=None, fp32=None)
    found = loaded(clean("a", codes(8)), clean("b", codes(5)), known=t)
    (one,) = grouped(found, "runtime")["sets"]
    assert "same samples" in one["fleet"]["problem"]
    document = paired(found, "a", "b")
    (pair,) = document["sets"][0]["pairs"]
    assert "cannot be compared" in pair["problem"]
    assert "cannot be compared" in text(document)


def test_nan_and_infinity_are_counted_and_never_printed_as_numbers() -> None:
    bad = f32([[1, 5], [np.nan, 0], [np.inf, 0], [3, 2]])
    known = truth(4, fp32=None)
    found = loaded(
        clean("a", outputs=outputs(bad)),
        clean("b", outputs=outputs(np.nan_to_num(bad, posinf=0))),
        known=known,
    )
    document = grouped(found, "device")
    a, b = document["sets"][0]["rows"]
    assert (a["nonfinite"], b["nonfinite"]) == (2, 0)
    assert a["confidence"]["n"] == a["calibration"]["brier"]["n"] == 2
    assert a["accuracy"] == {**a["accuracy"], "k": 1, "n": 4}
    text(document)
    (pair,) = paired(found, "a", "b")["sets"][0]["pairs"]
    assert (pair["real"]["n"], pair["confidences"]["jsd"]["n"]) == (6, 2)
    assert pair["disagreement"]["k"] == 2


def test_slices_claim_once_for_equal_bytes() -> None:
    labels = np.zeros(80, np.int64)
    part = np.where(np.arange(80) < 12, "small", "rest")
    known = truth(80, labels=labels, slices={"part": part, "odd": np.arange(80) % 2})
    q = codes(80, flipped=12)
    found = loaded(clean("a", q), clean("b", q.copy()), clean("c", codes(80)), known=known)
    document = sliced(found)
    (one,) = document["sets"]
    assert one["columns"] == ["odd", "part"]
    a, b, c = one["rows"]
    assert (b["same_as"], c["same_as"]) == (a["id"], None)
    assert [s["loses"] for s in a["slices"] if s["value"] == "small"] == [True]
    assert not any(s["loses"] for s in c["slices"])
    worst = a["worst"]
    assert (worst["column"], worst["value"], worst["difference"]) == ("part", "small", -1.0)
    gap = worst["gap"]
    assert (gap["value"], gap["n"]) == (-0.85, 80)
    assert gap["low"] < -0.85 < gap["high"] < -0.4
    small = next(s for s in a["slices"] if s["value"] == "small")
    # Of the claims of two rows with other bytes, eight, the most certain.
    assert small["p_adjusted"] == pytest.approx(8 * small["p_loss"])
    assert small["confidence"]["n"] == small["n"] == 12
    shown = text(document)
    assert "small" in shown
    assert shown.count("b/ort") == 1
    short = truth(80, labels=labels, slices={"part": part[:5]})
    (broken,) = sliced(loaded(clean("a", q), known=short))["sets"]
    assert "shape" in broken["rows"][0]["problem"]


def test_samples_that_differ_come_decided_otherwise_first_then_by_distance() -> None:
    labels = np.zeros(8, np.int64)
    a, b = codes(8), codes(8)
    b[5] = (40, 80)  # decides 1, 80 steps off
    b[2, 1] += 3
    b[6, 1] += 7
    known = truth(8, labels=labels)
    document = paired(loaded(clean("a", a), clean("b", b), known=known), "a", "b")
    (pair,) = document["sets"][0]["pairs"]
    assert [(x["sample"], x["differ"], x["lsb"]) for x in pair["samples"]] == [
        (5, True, 80),
        (6, False, 7),
        (2, False, 3),
    ]
    first = pair["samples"][0]
    assert (first["a"]["decision"], first["b"]["decision"], first["a"]["label"]) == (0, 1, 0)
    assert (first["a"]["margin"], first["b"]["margin"]) == (40, 40)
    assert first["b"]["top"] == [1, 0]
    assert first["b"]["c_to_i"]
    p = 1 / (1 + np.exp(-20))  # 40 steps of 0.5
    assert first["a"]["p1"] == np.float64(p)
    assert first["a"]["nll"] == -np.log(p)
    assert "decision a / b" in text(document)
    for shown, expected in ((0, []), (1, [5])):
        few = paired(loaded(clean("a", a), clean("b", b)), "a", "b", shown)
        assert [x["sample"] for x in few["sets"][0]["pairs"][0]["samples"]] == expected


def test_samples_of_a_row_are_those_that_leave_fp32() -> None:
    labels = np.zeros(8, np.int64)
    labels[3] = 1  # FP32 decides 0 everywhere
    q = codes(8)
    q[3] = q[6] = (40, 80)
    q[1, 1] += 30
    found = loaded(clean("a", q), known=truth(8, labels=labels))
    (row,) = grouped(found, "device", 2)["sets"][0]["rows"]
    flips = [(x["sample"], x["c_to_i"], x["i_to_c"]) for x in row["samples"]]
    assert flips == [(6, True, False), (3, False, True)]
    shown = text(grouped(found, "device", 3))
    assert "C→I" in shown
    assert "I→C" in shown
    (row,) = grouped(loaded(clean("a", q)), "device", 3)["sets"][0]["rows"]
    assert row["samples"] == []  # no parent
    assert grouped(found, "device")["sets"][0]["rows"][0]["samples"] == []


def test_floats_off_any_lattice_are_ordered_by_their_distance() -> None:
    a = f32([[0.1, 0.9], [0.2, 0.8], [0.3, 0.71]])
    b = a + f32([[0, 0], [0.01, 0], [0.02, 0]])
    found = loaded(
        clean("a", outputs=(Output("p", a),)),
        clean("b", outputs=(Output("p", b),)),
        known=truth(3, labels=None, fp32=None),
    )
    (pair,) = paired(found, "a", "b")["sets"][0]["pairs"]
    assert [x["sample"] for x in pair["samples"]] == [2, 1]
    assert pair["samples"][0]["max_abs"] == pytest.approx(0.02, abs=1e-6)
    assert "max |a-b|" in text(paired(found, "a", "b"))


def test_a_pair_says_after_how_many_samples_its_fail_was_certain() -> None:
    reference = codes(100)
    reference[40:, 0] = np.arange(60)[::-1]  # the last samples are the nearest ties
    other = reference.copy()
    other[95:, 1] = 80
    found = paired(loaded(clean("a", reference), clean("b", other), known=truth(100)), "a", "b")
    (pair,) = found["sets"][0]["pairs"]
    assert pair["early"]["needed"] == 3
    assert (pair["early"]["near_ties_first"], pair["early"]["own_order"]) == (3, 98)
    assert "3 of 100 samples near ties first, 98 in their own order" in text(found)
    assert pair["confidences"]["mmd"]["p"] <= 1
