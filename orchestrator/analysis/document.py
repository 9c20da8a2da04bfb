"""The one dict that every renderer reads (``assay.result/1``), assembled from its parts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from typing import Any

from orchestrator.signoff.result import COVERAGE

SCHEMA = "assay.result/1"
MAX_POINTS = 300
"""Most points kept of a trace's series: more than a chart in a report can show."""

_SIGNOFF = ("verdict", "reasons", "policy", "classes", "rows", "pairs", "fleet")


def build(
    run: Mapping[str, Any],
    signoff: Mapping[str, Any],
    coverage: Mapping[str, int],
    latency: Mapping[str, Mapping[str, Any]],
    traces: Sequence[Mapping[str, Any]],
    attempts: Sequence[Mapping[str, Any]],
    environments: Mapping[str, Mapping[str, Any]] | None = None,
    compiled: Mapping[str, Mapping[str, Any]] | None = None,
    signatures: Mapping[str, str] | None = None,
    lineage: Mapping[str, Mapping[str, Any]] | None = None,
    by_class: Mapping[str, Any] | None = None,
    damaged: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The result document.

    ``run``: id, name, created_unix (s), state, matrix_sha256, optionally hosts. ``signoff``: the
    sign-off's JSON, taken over unchanged. ``coverage``: cells per outcome; a missing outcome is 0.
    ``latency``: row ID → n, p50_us, p90_us, p99_us, emulated, timing_valid. ``traces``: series
    of any length, thinned here to ``MAX_POINTS``. ``attempts``: every attempt of the run;
    ``environments``: what their ``environment`` (a sha256) stands for, each once.
    ``compiled``: "model.file" → what an accelerator takes of it and where it comes from.
    ``signatures``: "model.file" → which of its signatures were not run, in words.
    ``lineage``: "model.file" → whether its weights come from its FP32 parent.
    ``by_class``: what spot checks came to, where the run was planned by equivalence class.
    ``damaged``: what could not be read: what, error_id, error.
    Raises KeyError when the sign-off lacks one of its parts.
    """
    return {
        **signoff,
        **{part: signoff[part] for part in _SIGNOFF},
        "schema": SCHEMA,
        "assay_version": _version(),
        "run": dict(run),
        "coverage": {name: coverage.get(name, 0) for name in COVERAGE},
        "latency": {row: dict(numbers) for row, numbers in latency.items()},
        "traces": [_thin_trace(trace) for trace in traces],
        "attempts": [dict(attempt) for attempt in attempts],
        "environments": {sha256: dict(facts) for sha256, facts in (environments or {}).items()},
        "compiled": {file: dict(facts) for file, facts in (compiled or {}).items()},
        "signatures": dict(signatures or {}),
        "lineage": {file: dict(told) for file, told in (lineage or {}).items()},
        "by_class": dict(by_class) if by_class is not None else None,
        "damaged": [dict(told) for told in damaged],
    }


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the document."""
    kept = resources.files("orchestrator.reports") / "schema" / "result-1.json"
    text = kept.read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def thin(values: Sequence[float | None], limit: int = MAX_POINTS) -> list[float | None]:
    """At most ``limit`` (even, ≥ 2) values in order: smallest and largest of each equal stretch.

    Averages would hide the spikes, which are what a latency trace is read for.
    """
    if len(values) <= limit:
        return list(values)
    stretches = limit // 2
    kept: list[float | None] = []
    for i in range(stretches):
        part = values[i * len(values) // stretches : (i + 1) * len(values) // stretches]
        known = [(value, at) for at, value in enumerate(part) if value is not None]
        if not known:
            kept.append(None)
            continue
        ends = {min(known)[1], max(known)[1]}
        kept.extend(part[at] for at in sorted(ends))
    return kept


def _thin_trace(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Readings that share the time axis keep the same instants, evenly spread, both ends in."""
    length = len(trace["t_s"])
    if length <= MAX_POINTS:
        at: Sequence[int] = range(length)
    else:
        at = [i * (length - 1) // (MAX_POINTS - 1) for i in range(MAX_POINTS)]
    return {
        **trace,
        "t_s": [trace["t_s"][i] for i in at],
        "temp_c": {name: [series[i] for i in at] for name, series in trace["temp_c"].items()},
        "freq_khz": {name: [series[i] for i in at] for name, series in trace["freq_khz"].items()},
        "power_mw": {
            name: [series[i] for i in at] for name, series in trace.get("power_mw", {}).items()
        },
        "latency_us": thin(trace["latency_us"]),
    }


def _version() -> str:
    try:
        return metadata.version("assay")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"
