"""The document that renderers and ``--json`` rely on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from orchestrator.variance.lattice import Output
from tests.unit.signoff.build import clean, codes, decide, device, failed, policy, truth

SCHEMA = Path(__file__).parents[3] / "orchestrator" / "reports" / "schema" / "result-1.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    broken = (Output("logits", np.full((1000, 2), np.inf, np.float32)),)
    return decide(
        device("ref"),
        device("a", codes(flipped=40, by=1)),
        clean("b", outputs=broken),
        failed("c"),
        device("q", emulated=True),
        policy_=policy(accept_emulated=True),
    ).to_json()


def test_it_is_strict_json(document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_it_has_the_agreed_fields(document: dict[str, Any]) -> None:
    assert set(document) == {
        "verdict", "reasons", "policy", "classes", "rows", "pairs", "fleet", "timed_out",
    }  # fmt: skip
    row = next(r for r in document["rows"] if r["device"] == "a")
    assert row["id"] == "net.int8@a/ort"
    assert row["reference"] == "net.int8@ref/ort"
    assert set(row["accuracy"]) == {"k", "n", "rate", "low", "high"}
    assert row["fp32"]["c_to_i"] == 40
    assert row["vs_reference"]["lsb_histogram"] == {"0": 1000, "1": 960, "81": 40}
    assert row["vs_reference"]["mean_signed_lsb"] == pytest.approx((960 + 40 * 81) / 2000)
    assert row["vs_reference"]["near_tie"] == {"k": 0, "n": 40}
    assert row["repeat"] == {"count": 100, "samples": 8, "mismatches": 0}
    assert set(row["gates"][0]) == {
        "gate", "verdict", "observed", "n", "bound", "limit", "reason", "attempts",
    }  # fmt: skip
    assert document["policy"]["name"] == "test"
    fleet = document["fleet"][0]
    assert (fleet["model"], fleet["n"], fleet["rows"]) == ("net", 1000, 4)
    assert set(fleet["worst_pair"]) == {"a", "b", "disagreement"}
    assert len(document["pairs"]) == 6
    pair = next(p for p in document["pairs"] if {p["a"], p["b"]} == {row["id"], row["reference"]})
    assert pair["lsb_histogram"] == row["vs_reference"]["lsb_histogram"]
    assert all(c["rows"] for c in document["classes"])


@pytest.mark.parametrize(
    ("part", "name"), [("rows", "row"), ("pairs", "pair"), ("fleet", "fleet"), ("classes", "class")]
)
def test_it_fits_the_published_schema(document: dict[str, Any], part: str, name: str) -> None:
    schema = json.loads(SCHEMA.read_text())
    validator = Draft202012Validator({"$defs": schema["$defs"], "$ref": f"#/$defs/{name}"})
    for entry in document[part]:
        validator.validate(entry)


def test_a_number_that_is_none_becomes_null() -> None:
    found = decide(device("ref"), device("a"))
    odd = tuple(replace(g, observed=float("nan"), bound=float("inf")) for g in found.rows[0].gates)
    spoilt = replace(found, rows=(replace(found.rows[0], gates=odd),)).to_json()
    gate = spoilt["rows"][0]["gates"][0]
    assert (gate["observed"], gate["bound"]) == (None, None)


def test_unlabelled_documents_have_nulls_not_gaps() -> None:
    found = decide(device("ref"), device("a"), truth_=truth(labels=None)).to_json()
    assert found["rows"][0]["accuracy"] is None
    assert found["rows"][0]["fp32"]["mcnemar_p"] is None
    assert found["fleet"][0]["instability"] is None
