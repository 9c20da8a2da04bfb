"""The tables that `assay export` writes and `assay sql` asks: names, types, meanings.

The one place that says so: Parquet files, DuckDB views, `assay sql --tables` and the guide follow.
Within version 1 columns and tables may be added; none is removed and none changes its meaning.
Unknown is null, never 0. Rates come as k of n with the two-sided 95 % interval, as fractions of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

VERSION = "assay.tables/1"

Kind = Literal["text", "name", "bool", "int32", "int64", "uint64", "float64"]
"""``name`` is text that repeats a lot and is kept as a dictionary."""


@dataclass(frozen=True)
class Column:
    name: str
    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Table:
    """``columns`` in the order in which they are written."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> Any:
        """The pyarrow.Schema; the meanings are in its metadata, key "meaning"."""
        import pyarrow as pa

        types = {
            "text": pa.string(),
            "name": pa.dictionary(pa.int32(), pa.string()),
            "bool": pa.bool_(),
            "int32": pa.int32(),
            "int64": pa.int64(),
            "uint64": pa.uint64(),
            "float64": pa.float64(),
        }
        fields = [
            pa.field(c.name, types[c.kind], metadata={"meaning": c.meaning}) for c in self.columns
        ]
        return pa.schema(fields, metadata={"schema": VERSION, "meaning": self.meaning})


def _rate(name: str, what: str) -> tuple[Column, ...]:
    return (
        Column(f"{name}_k", "int64", what),
        Column(f"{name}_n", "int64", f"of so many ({name}_k)"),
        Column(f"{name}_low", "float64", f"lower end of the 95 % interval of {name}_k/{name}_n"),
        Column(f"{name}_high", "float64", f"upper end of the 95 % interval of {name}_k/{name}_n"),
    )


_RUN = Column("run", "text", "run ID")
_WHAT = (
    Column("model", "text", "model's name in the matrix"),
    Column("file", "text", "name of the model's INT8 file in the matrix"),
    Column("inputs", "text", "input set's name in the matrix"),
)
_CONDITION = Column(
    "condition", "text", "clean, repeat:N, soak:75C/60s, power:MODE, order:SEED or spot:N@SEED"
)
_RUNTIME = Column("runtime", "text", "name of the runtime configuration in the matrix")
_DEVICE = Column("device", "text", "unit, null where none ever took the cell")
_CLASS = Column("device_class", "text", "device class of the unit")
_EMULATED = Column(
    "emulated", "bool", "emulated or a stand-in: its times and temperatures mean nothing"
)

RUNS = Table(
    "runs",
    "one row per run",
    (
        _RUN,
        Column("name", "text", "the matrix' name"),
        Column("state", "text", "queued, running, interrupted or done"),
        Column("created_unix", "float64", "when it was queued, Unix seconds"),
        Column("verdict", "text", "newest verdict; null before the first sign-off"),
        Column("reason", "text", "its first reason"),
        Column("policy", "text", "the policy's name"),
    ),
)

CELLS = Table(
    "cells",
    "one row per planned cell",
    (
        _RUN,
        Column("cell", "text", "cell ID, unique in its run"),
        Column("position", "int32", "plan order"),
        Column("slot", "text", "device slot of the plan"),
        Column("device", "text", "unit bound to the slot, null before one was"),
        *_WHAT,
        _CONDITION,
        _RUNTIME,
        Column("state", "text", "pending, running or done"),
        Column("outcome", "text", "of the attempt that counts; null until the cell is done"),
        Column("attempt", "text", "the attempt that counts"),
        Column("failures", "int32", "attempts that failed and were tried again"),
    ),
)

ATTEMPTS = Table(
    "attempts",
    "one row per try at a cell, failed ones too, with the environment it ran in",
    (
        _RUN,
        Column("attempt", "text", "attempt ID"),
        Column("cell", "text", "cell ID"),
        Column("number", "int32", "counts the cell's attempts from 1"),
        *_WHAT,
        _CONDITION,
        _DEVICE,
        _CLASS,
        _EMULATED,
        _RUNTIME,
        Column(
            "outcome",
            "text",
            "running, or ok, model_error, infra_error, timeout, cancelled, not_available",
        ),
        Column("error_id", "text", "stable ID of the error (docs/errors.md)"),
        Column("error", "text", "the error in one line"),
        Column("codes_valid", "bool", "whether the output bytes may be used; null unless ok"),
        Column("timing_valid", "bool", "whether the latency may be used; null unless ok"),
        Column("timing_notes", "text", "why the timing is invalid, reasons separated by '; '"),
        Column("claimed_unix", "float64", "when the unit took it, Unix seconds"),
        Column("started_unix", "float64", "when it began, Unix seconds; null if never"),
        Column("ended_unix", "float64", "when it ended, Unix seconds"),
        Column("hub", "text", "hub that drove the unit"),
        Column("offline", "bool", "packed, run by hand and ingested"),
        Column("model_sha256", "text", "of the model file that ran"),
        Column("backend", "text", "what ran the model: planned provider or delegate"),
        Column(
            "fallbacks", "text", "silent fallbacks, separated by '; '; empty where there was none"
        ),
        Column("repeats", "int32", "passes over repeat_samples samples"),
        Column("repeat_samples", "int32", "samples that were run again"),
        Column("repeat_mismatches", "int32", "outputs that differ from the first pass"),
        Column("bytes_pushed", "int64", "sent to the device for this attempt"),
        Column("load_ns", "int64", "time to load the model"),
        Column("environment", "text", "sha256 of all that the worker said of its environment"),
        Column("engine", "text", "runtime: onnxruntime, litert, tflite-runtime"),
        Column("version", "text", "the runtime's version"),
        Column("build", "text", "sha256 over the runtime's native libraries"),
        Column("threads", "int32", "threads given to the runtime"),
        Column("machine", "text", "aarch64, x86_64, ..."),
        Column("core", "text", "distinct cores: ARM implementer/part, x86 model name"),
        Column(
            "isa", "text", "instruction-set flags that all cores share, sorted, one space apart"
        ),
        Column("os", "text", "operating system"),
        Column("kernel", "text", "kernel release"),
        Column("python", "text", "version of the worker's Python"),
        Column("numpy", "text", "version of the worker's NumPy"),
    ),
)

ROWS = Table(
    "rows",
    "one row per model file, device and runtime: the figures of the run's newest verdict",
    (
        _RUN,
        Column("row", "text", "model.file@device/runtime"),
        *_WHAT,
        Column("device", "text", "unit"),
        _CLASS,
        _EMULATED,
        _RUNTIME,
        Column("attempt", "text", "its clean attempt, which the figures come from"),
        Column("status", "text", "gravest outcome among its cells"),
        Column("verdict", "text", "pass, fail, inconclusive, covered-by-class, error or timeout"),
        Column("reason", "text", "first reason of the verdict"),
        Column("is_reference", "bool", "whether others are compared with it"),
        Column("reference", "text", "the row it is compared with"),
        Column(
            "lineage",
            "text",
            "whether its weights come from the FP32 parent: nearest-step, derived, unrelated,"
            " not-fp32 or inconclusive; null without a parent",
        ),
        *_rate("accuracy", "samples decided right; null without labels"),
        *_rate("fp32_accuracy", "samples that the FP32 parent decides right"),
        *_rate("flips", "samples decided differently than by the FP32 parent"),
        Column("c_to_i", "int64", "samples FP32 gets right and this row wrong"),
        Column("i_to_c", "int64", "samples FP32 gets wrong and this row right"),
        *_rate("bit_exact", "samples whose output bytes equal the reference's"),
        *_rate("disagreement", "samples decided differently than by the reference"),
        Column("max_lsb", "int64", "largest distance from the reference's codes, in steps"),
        Column("mean_signed_lsb", "float64", "mean of this row's codes minus the reference's"),
        Column("repeat_mismatches", "int64", "outputs that differ when repeated"),
        Column("nonfinite", "int64", "samples with NaN or infinity in an output"),
    ),
)

PAIRS = Table(
    "pairs",
    "every two rows of one model file, from the run's newest verdict",
    (
        _RUN,
        *_WHAT,
        Column("a", "text", "one row"),
        Column("b", "text", "the other row"),
        Column("attempt_a", "text", "clean attempt of a"),
        Column("attempt_b", "text", "clean attempt of b"),
        Column("n", "int64", "samples compared"),
        Column("bit_exact", "int64", "samples whose output bytes are equal"),
        Column("max_lsb", "int64", "largest distance of codes in steps; null without codes"),
        *_rate("disagreement", "samples decided differently"),
        Column("near_tie", "int64", "of them, samples with a top margin below 2 steps"),
    ),
)

SAMPLES = Table(
    "samples",
    "one row per sample of every attempt that answered",
    (
        Column("run", "name", "run ID"),
        Column("attempt", "name", "attempt ID"),
        *(Column(c.name, "name", c.meaning) for c in _WHAT),
        Column("condition", "name", _CONDITION.meaning),
        Column("device", "name", "unit"),
        Column("device_class", "name", _CLASS.meaning),
        _EMULATED,
        Column("runtime", "name", _RUNTIME.meaning),
        Column("sample", "int32", "index in the input set, from 0"),
        Column(
            "output",
            "uint64",
            "first 64 bits of the sha256 of the output bytes: equal bytes, equal number",
        ),
        Column(
            "decision", "int32", "class decided (anomaly: 1 or 0); null for NaN and regressions"
        ),
        Column("label", "int32", "right decision; null without labels and for regressions"),
        Column("correct", "bool", "decided right; null without labels"),
        Column(
            "margin_lsb", "float64", "steps to the nearest other decision; null off any lattice"
        ),
        Column("fp32_decision", "int32", "of the FP32 parent on this sample; null without one"),
        Column("fp32_correct", "bool", "whether the FP32 parent decides right"),
        Column("flip", "bool", "decided differently than by FP32; null without a stored baseline"),
        Column("latency_ns", "int64", "of the first pass, nanoseconds"),
    ),
)

TELEMETRY = Table(
    "telemetry",
    "one row per reading of a sensor while an attempt ran",
    (
        Column("run", "name", "run ID"),
        Column("attempt", "name", "attempt ID"),
        Column("device", "name", "unit"),
        _EMULATED,
        Column("t_s", "float64", "seconds since the attempt began"),
        Column(
            "sensor",
            "name",
            "temp/NAME °C, freq/NAME kHz, power/NAME mW, battery/NAME %, mem/NAME bytes, flags",
        ),
        Column("value", "float64", "null where the sensor could not be read"),
    ),
)

PROBLEMS = Table(
    "problems",
    "what could not be read and is therefore missing from the other tables",
    (
        _RUN,
        Column("part", "text", "the table that lacks it"),
        Column("subject", "text", "attempt, cell, or model on input set; null for the whole run"),
        Column("error_id", "text", "stable ID of the error (docs/errors.md)"),
        Column("error", "text", "the error in one line"),
    ),
)

TABLES = {t.name: t for t in (RUNS, CELLS, ATTEMPTS, ROWS, PAIRS, SAMPLES, TELEMETRY, PROBLEMS)}
"""In the order in which they are built: problems are known when the rest is."""
