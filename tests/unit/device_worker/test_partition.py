"""What a TFLite runtime's defaults hand to XNNPACK, on operator lists as interpreters give."""

from __future__ import annotations

from typing import Any

import pytest

from device_worker.runtimes.partition import delegated, left_out


def op(name: str, inputs: list[int], output: int) -> dict[str, Any]:
    return {"op_name": name, "inputs": inputs, "outputs": [output]}


def chain(kind: str, weights: str = "", first: str = "CONV_2D") -> tuple[list[Any], dict[int, str]]:
    """Input 0 -> ``first`` (weights 1) -> 2 -> FULLY_CONNECTED (weights 3) -> 4."""
    operators = [op(first, [0, 1], 2), op("FULLY_CONNECTED", [2, 3], 4)]
    return operators, {0: kind, 1: weights or kind, 2: kind, 3: kind, 4: kind}


def found(
    operators: list[Any], kinds: dict[int, str], quantised: bool = True, taken: int | None = None
) -> list[str]:
    """``taken``: the one operator that a delegate took."""
    if taken is not None:
        given, made = operators[taken]["inputs"], operators[taken]["outputs"]
        operators = [*operators, {"op_name": "DELEGATE", "inputs": given, "outputs": made}]
        assert delegated(operators) == {taken}
    return left_out(operators, delegated(operators), kinds, [4], quantised)


BOTH = ["CONV_2D", "FULLY_CONNECTED"]


@pytest.mark.parametrize(
    ("kind", "quantised", "none", "second"),
    [
        ("float32", False, BOTH, ["CONV_2D"]),
        ("int8", True, BOTH, ["CONV_2D"]),
        ("uint8", True, BOTH, ["CONV_2D"]),
        ("int8", False, [], []),
        ("int16", True, [], []),
    ],
)
def test_kinds(kind: str, quantised: bool, none: list[str], second: list[str]) -> None:
    """``none``: where nothing was taken, ``second``: where FULLY_CONNECTED alone was."""
    assert found(*chain(kind), quantised) == none
    assert found(*chain(kind), quantised, taken=1) == second


def test_float_with_quantised_weights_says_something_only_where_all_is_lost() -> None:
    assert found(*chain("float32", "int8")) == BOTH
    assert found(*chain("float32", "int8"), quantised=False) == ["FULLY_CONNECTED"]
    assert found(*chain("float32", "int8"), taken=1) == []


def test_quantised_sums_depend_on_their_scales() -> None:
    assert found(*chain("int8", first="ADD"), taken=1) == []
    assert found(*chain("int8", first="ADD")) == ["ADD", "FULLY_CONNECTED"]
    assert found(*chain("float32", first="ADD"), taken=1) == ["ADD"]


def test_no_default_takes_these() -> None:
    assert found(*chain("float32", first="SOFTMAX"), taken=1) == []
    computed, kinds = chain("float32")
    computed = [op("RESHAPE", [5, 6], 1), *computed]
    assert found(computed, kinds | {5: "float32", 6: "int32"}, taken=2) == []
    dead = [*chain("float32")[0], op("CONV_2D", [0, 1], 9)]
    assert found(dead, chain("float32")[1] | {9: "float32"}, taken=0) == ["FULLY_CONNECTED"]
