"""What tells two fingerprints apart, and why a file does not meet it."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.fingerprint.applicability import unreached

CONV, DENSE = "CONV_2D int8 per-channel", "FULLY_CONNECTED int8 per-tensor batch 1"
APART = (CONV, f"{CONV} one channel", f"{CONV} float ends", "CONV_2D wide float32", "SOFTMAX int8")
OPERATORS = {"CONV_2D": 5, "FULLY_CONNECTED": 1, "SOFTMAX": 1}
ABSENT = "the file has no such operator"


def document(who: str, relu: str = "same") -> dict[str, Any]:
    """Every probe is answered differently by each, but those with an activation."""
    probes = {"conv.odd": {"answer": who}, "conv.ties2": {"answer": who}}
    clamped = {"conv.odd.relu": {"answer": relu}, "conv.ties2.relu": {"answer": relu}}
    families: dict[str, Any] = {name: {"probes": probes} for name in APART}
    return {"families": families | {CONV: {"probes": probes | clamped}}}


def found(families: dict[str, tuple[int, int]], **more: Any) -> dict[str, str]:
    operators = OPERATORS | more.get("operators", {})
    b = document("b", more.get("relu", "same"))
    return unreached(APART, document("a"), b, operators, families)


def test_clamped_results_and_operators_that_are_not_there() -> None:
    told = found({CONV: (5, 5), DENSE: (1, 0)})
    assert "all 5 in the file" in told.pop(CONV)
    assert told == dict.fromkeys(APART[1:4], ABSENT), "of SOFTMAX nothing is known, nothing is said"


@pytest.mark.parametrize(
    "more",
    [
        {"families": {CONV: (5, 4)}},  # one has no activation
        {"families": {CONV: (5, 5)}, "relu": "other"},  # the clamped ones differ, too
    ],
)
def test_what_may_reach_the_file_is_not_explained_away(more: dict[str, Any]) -> None:
    assert CONV not in found(**more)


def test_nothing_is_said_of_operators_that_are_not_known() -> None:
    assert found({}) == {}, "a run of an older Assay, or an ONNX file"
    assert found({CONV: (4, 4)}) == {}, "a fifth one computes something else"


def test_float_ends_are_met_where_the_file_has_them() -> None:
    told = found({CONV: (5, 5)}, operators={"QUANTIZE": 1})
    assert f"{CONV} float ends" not in told, "no probe of those has an activation"
