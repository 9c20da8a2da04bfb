"""What is known of a row: read off the worker's own words, never concluded from the outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from device_worker.wire import Delegate, RuntimeSpec
from orchestrator.diagnosis.evidence import Side
from orchestrator.diagnosis.evidence_side import side
from orchestrator.runs.observations import told
from orchestrator.variance.factors import factors
from orchestrator.variance.lattice import Output
from orchestrator.variance.observation import Observation, Order, Row
from orchestrator.variance.repeatability import Reordered

HASWELL = {"machine": "x86_64", "isa_flags": ["avx2"], "cores": []}
SPEC = RuntimeSpec("litert")
ROW = Row("m", "f", "unit", "class", False, "r", "inputs", "clean")


def result(**changes: Any) -> dict[str, Any]:
    plain = {
        "backend": {"planned": "default", "fallbacks": [], "operators": {"Conv": 1}},
        "repeats": {"count": 1, "samples": 4, "mismatches": 0},
        "input_sha256": ["x" * 64],
        "model_sha256": "m" * 64,
        "outputs": [{"blob": {"sha256": "o" * 64}}],
    }
    return plain | changes


def cell(condition: str, values: list[int], **changes: Any) -> Observation:
    output = Output("y", np.array(values, np.int8).reshape(4, 1))
    row = replace(ROW, condition=condition)
    return told(row, result(**changes), (output,), HASWELL, cell=condition, attempt="a")


CLEAN = cell("clean", [1, 2, 3, 4])
REPEAT = cell("repeat:3", [1, 2, 3, 4], repeats={"count": 3, "samples": 4, "mismatches": 2})
ORDER = cell("order:7", [1, 2, 9, 4], order={"seed": 7, "sample": 0, "same": False})


def shown(cells: list[Observation], spec: RuntimeSpec = SPEC) -> Side:
    return side("row", factors(ROW, spec, HASWELL), spec, result(), HASWELL, cells)


def test_a_row_asked_once_says_nothing_of_repeats_or_order() -> None:
    found = shown([CLEAN])
    assert (found.repeated, found.mismatches, found.order) == (0, 0, None)
    assert found.pair_sums is True
    assert found.operators == {"Conv": 1}


def test_repeats_and_order_are_counted_over_the_row() -> None:
    found = shown([CLEAN, REPEAT, ORDER])
    assert (found.repeated, found.mismatches) == (8, 2)
    assert found.order == Reordered(1, 4, 1, 1)
    kept = replace(ORDER, order=Order(7, 0, True))
    assert shown([CLEAN, kept]).order == Reordered(1, 4, 0, 1)


def test_without_reset_a_repeat_is_another_question() -> None:
    found = shown([CLEAN, REPEAT], replace(SPEC, reset=False))
    assert (found.repeated, found.mismatches) == (0, 0)


def test_a_delegate_is_an_accelerator() -> None:
    assert shown([CLEAN], replace(SPEC, delegate=Delegate("npu", "libnpu.so"))).accelerated
    assert not shown([CLEAN]).accelerated
