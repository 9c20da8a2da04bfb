"""Rows of the samples table say of each sample what the statistics say of all together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.export.samples import parent, sample_rows
from orchestrator.export.tables import SAMPLES
from orchestrator.variance import answers, tasks
from orchestrator.variance.device import against_fp32
from orchestrator.variance.observation import Observation, Output, Row, Truth

ROW = Row("m", "int8", "pi", "rpi4", False, "litert", "digits", "clean")


def seen(values: NDArray[Any], condition: str = "clean") -> Observation:
    scale = 0.5 if values.dtype == np.int8 else None
    row = replace(ROW, condition=condition)
    return Observation(row, "cell", "ok", "attempt", outputs=(Output("y", values, scale, 3),))


def truth(labels: NDArray[Any] | None, fp32: NDArray[Any] | None, task: Any = None) -> Truth:
    outputs = None if fp32 is None else (Output("y", fp32),)
    return Truth(task or tasks.Classification(), labels, outputs, "parent")


def columns(observation: Observation, known: Truth, **series: Any) -> dict[str, list[Any]]:
    hashes, latency = series.get("hashes"), series.get("latency")
    table = sample_rows("run", observation, known, parent(known), hashes, latency)
    assert table.schema.equals(SAMPLES.schema, check_metadata=True)
    found: dict[str, list[Any]] = table.to_pydict()
    return found


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.booleans())
def test_the_rows_add_up_to_the_figures_of_the_verdict(seed: int, n: int, nan: bool) -> None:
    rng = np.random.default_rng(seed)
    if nan:
        values = rng.choice(np.array([0, 1, 2, np.nan, np.inf], np.float32), (n, 4))
    else:
        values = rng.integers(-3, 3, (n, 4), dtype=np.int8)
    fp32 = rng.integers(-3, 3, (n, 4)).astype(np.float32)
    known = truth(rng.integers(0, 4, n), fp32)
    mine = answers.read(known.task, seen(values).outputs, known.labels)
    against = against_fp32(mine, answers.read(known.task, known.fp32 or (), known.labels))
    rows = columns(seen(values), known)
    assert mine.correct is not None
    assert rows["correct"] == mine.correct.tolist()
    assert sum(rows["flip"]) == against.disagreement.k
    pairs = list(zip(rows["fp32_correct"], rows["correct"], strict=True))
    assert (pairs.count((True, False)), pairs.count((False, True))) == (
        against.c_to_i,
        against.i_to_c,
    )
    decided = [None if d == tasks.NO_DECISION else d for d in mine.decisions.tolist()]
    assert rows["decision"] == decided
    margins = [None] * n if mine.margins is None else mine.margins.tolist()
    assert rows["margin_lsb"] == margins


def test_constants_stand_in_every_row_and_unknown_is_null() -> None:
    rows = columns(seen(np.zeros((2, 3), np.int8)), truth(None, None))
    assert rows["device"] == ["pi", "pi"]
    assert rows["emulated"] == [False, False]
    assert rows["sample"] == [0, 1]
    for name in ("label", "correct", "fp32_decision", "fp32_correct", "flip", "output"):
        assert rows[name] == [None, None], name
    assert rows["latency_ns"] == [None, None]


def test_the_output_number_is_the_beginning_of_the_hash() -> None:
    hashes = np.zeros((2, 32), np.uint8)
    hashes[0, 7], hashes[1, 0], hashes[1, 8] = 5, 255, 9
    rows = columns(seen(np.zeros((2, 3), np.int8)), truth(None, None), hashes=hashes)
    assert rows["output"] == [5, 255 << 56]


def test_a_repeat_answers_the_first_samples_and_a_clean_cell_all_or_none() -> None:
    known = truth(np.array([0, 1, 2, 0]), np.eye(4, 3, dtype=np.float32))
    short = np.eye(2, 3, dtype=np.float32)
    rows = columns(seen(short, "repeat:3"), known)
    assert (rows["correct"], rows["flip"]) == ([True, True], [False, False])
    with pytest.raises(tasks.TaskError, match="4 labels for 2 samples"):
        columns(seen(short), known)


def test_a_series_of_another_length_is_refused() -> None:
    values = np.zeros((2, 3), np.int8)
    with pytest.raises(tasks.TaskError, match="latencies"):
        columns(seen(values), truth(None, None), latency=np.zeros(3, np.int64))


def test_regressions_have_no_class_but_are_right_or_wrong() -> None:
    task = tasks.Regression(tolerance=0.1)
    values = np.array([[1.0], [2.0]], np.float32)
    rows = columns(seen(values), truth(np.array([1.0, 3.0]), values + 0.05, task))
    assert (rows["decision"], rows["label"]) == ([None, None], [None, None])
    assert (rows["correct"], rows["flip"]) == ([True, False], [False, False])
