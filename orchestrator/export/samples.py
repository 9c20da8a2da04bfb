"""One attempt's outputs → rows of the tables ``samples`` and ``telemetry``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.conditions import CLEAN
from orchestrator.export.tables import SAMPLES, TELEMETRY, Table
from orchestrator.variance import tasks
from orchestrator.variance.lattice import Array
from orchestrator.variance.observation import Observation, Truth
from orchestrator.variance.tasks import NO_DECISION, Mask, Regression


@dataclass(frozen=True, eq=False)
class Parent:
    """What the FP32 parent decides, once per (model, input set): as tasks.decisions, [n].

    ``correct`` is None without labels.
    """

    decisions: Array
    correct: Mask | None


def parent(truth: Truth) -> Parent | None:
    """None without a baseline. Raises TaskError where it does not fit the task or the labels."""
    if truth.fp32 is None:
        return None
    decided = tasks.decisions(truth.task, truth.fp32, truth.inputs)
    if truth.labels is None:
        return Parent(decided, None)
    tasks.check_labels(truth.task, truth.labels, truth.fp32)
    return Parent(decided, tasks.correct(truth.task, decided, truth.labels))


def sample_rows(
    run: str,
    seen: Observation,
    truth: Truth,
    fp32: Parent | None,
    hashes: NDArray[np.uint8] | None,
    latency_ns: NDArray[np.int64] | None,
) -> pa.Table:
    """Rows of SAMPLES for one answered attempt.

    ``hashes`` [n, 32]: sha256 of each sample's output bytes; ``latency_ns`` [n]. Raises TaskError
    where outputs, labels, baseline or the two series do not fit the task or each other.
    """
    task, n = truth.task, len(tasks.tensor(truth.task, seen.outputs).values)
    positions = np.arange(n) if seen.samples is None else seen.samples
    if seen.row.condition != CLEAN:
        truth, fp32 = _those(_fits(positions, (n,), "positions"), truth, fp32)
    decided = tasks.decisions(task, seen.outputs, truth.inputs)
    found: dict[str, Any] = {
        "sample": positions.astype(np.int32),
        "decision": _classes(task, decided),
        "margin_lsb": tasks.margins(task, seen.outputs),
    }
    if truth.labels is not None:
        tasks.check_labels(task, truth.labels, seen.outputs)
        found["label"] = _classes(task, truth.labels.reshape(n, -1)[:, 0])
        found["correct"] = tasks.correct(task, decided, truth.labels)
    if fp32 is not None:
        found["fp32_decision"] = _classes(task, fp32.decisions)
        found["fp32_correct"] = fp32.correct
        found["flip"] = tasks.disagree(task, decided, fp32.decisions)
    if hashes is not None:
        found["output"] = _first_64_bits(_fits(hashes, (n, 32), "sample hashes"))
    if latency_ns is not None:
        found["latency_ns"] = _fits(latency_ns, (n,), "latencies")
    row = seen.row
    names = ("model", "file", "inputs", "condition", "device", "device_class", "runtime")
    constants = {name: getattr(row, name) for name in names}
    constants |= {"run": run, "attempt": seen.attempt, "emulated": row.emulated}
    return _table(SAMPLES, n, found, constants)


def telemetry_rows(readings: pa.Table, constants: Mapping[str, Any]) -> pa.Table:
    """Rows of TELEMETRY from those of store/series.py; ``constants``: the other columns."""
    found = {name: readings[name].combine_chunks() for name in ("t_s", "value")}
    found["sensor"] = readings["sensor"].combine_chunks().dictionary_encode()
    return _table(TELEMETRY, readings.num_rows, found, constants)


def _those(
    positions: NDArray[np.int64], truth: Truth, fp32: Parent | None
) -> tuple[Truth, Parent | None]:
    """What is known of the samples there: repeats, soaks and spot checks run no more than some."""

    def there(x: Array | None) -> Array | None:
        return None if x is None else x[positions[positions < len(x)]]

    labels, inputs = there(truth.labels), there(truth.inputs)
    if fp32 is not None:
        decisions, right = there(fp32.decisions), there(fp32.correct)
        assert decisions is not None
        fp32 = Parent(decisions, right)
    return replace(truth, labels=labels, inputs=inputs), fp32


def _classes(task: tasks.Task, decided: Array) -> pa.Array | None:
    if isinstance(task, Regression):
        return None
    return pa.array(decided.astype(np.int32), mask=decided == NO_DECISION)


def _first_64_bits(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(hashes).view(">u8")[:, 0].astype(np.uint64)


def _fits(series: Array, shape: tuple[int, ...], what: str) -> Array:
    if series.shape != shape:
        raise tasks.TaskError(f"{what} of shape {series.shape} for {shape[0]} samples")
    return series


def _table(table: Table, n: int, columns: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    """``columns`` by name, ``constants`` repeated ``n`` times, null where neither has one."""
    schema = table.schema
    same = pa.array(np.zeros(n, np.int32))
    arrays = []
    for field in schema:
        value = columns.get(field.name)
        if value is not None:
            arrays.append(value if isinstance(value, pa.Array) else pa.array(value, field.type))
        elif constants.get(field.name) is None:
            arrays.append(pa.nulls(n, field.type))
        elif pa.types.is_dictionary(field.type):
            name = pa.array([constants[field.name]], pa.string())
            arrays.append(pa.DictionaryArray.from_arrays(same, name))
        else:
            arrays.append(pa.repeat(pa.scalar(constants[field.name], field.type), n))
    return pa.Table.from_arrays(arrays, schema=schema)
