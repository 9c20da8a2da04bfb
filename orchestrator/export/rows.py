"""Records of the store and the verdict document → rows of the small tables. Pure.

A row is a dict by column name; what is absent is null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.conditions import CLEAN
from orchestrator.store.records import AttemptInfo, CellInfo, Json, RunInfo

Row = dict[str, Any]


def run_row(run: RunInfo, document: Json | None) -> Row:
    """``document``: the newest verdict's, None before the first one."""
    found = document or {}
    return {
        "run": run.id,
        "name": run.name,
        "state": run.state.value,
        "created_unix": run.created,
        "verdict": found.get("verdict"),
        "reason": _first(found),
        "policy": found.get("policy", {}).get("name"),
    }


def cell_row(cell: CellInfo) -> Row:
    return {
        **_what(cell),
        "run": cell.run,
        "cell": cell.id,
        "position": cell.position,
        "slot": cell.slot,
        "device": cell.unit,
        "state": cell.state.value,
        "outcome": cell.outcome.value if cell.outcome else None,
        "attempt": cell.attempt,
        "failures": cell.failures,
    }


def attempt_row(
    attempt: AttemptInfo,
    cell: CellInfo,
    environment: Mapping[str, Any],
    *,
    device_class: str | None,
    emulated: bool | None,
) -> Row:
    """``environment``: what the worker said (device_worker.environment), empty where it did not."""
    result = attempt.result or {}
    telemetry, repeats = result.get("telemetry", {}), result.get("repeats", {})
    backend, engine = result.get("backend", {}), environment.get("runtime") or {}
    timing = [*result.get("timing_notes", []), *telemetry.get("reasons", [])]
    return {
        **_what(cell),
        "run": attempt.run,
        "attempt": attempt.id,
        "cell": attempt.cell,
        "number": attempt.number,
        "device": attempt.device,
        "device_class": device_class,
        "emulated": emulated,
        "outcome": attempt.state.value,
        "error_id": attempt.error_id,
        "error": attempt.error,
        "codes_valid": attempt.codes_valid,
        "timing_valid": attempt.timing_valid,
        "timing_notes": "; ".join(dict.fromkeys(timing)) or None,
        "claimed_unix": attempt.claimed,
        "started_unix": attempt.started,
        "ended_unix": attempt.ended,
        "hub": attempt.hub,
        "offline": attempt.offline is not None,
        "model_sha256": result.get("model_sha256"),
        "backend": backend.get("planned"),
        "fallbacks": "; ".join(backend["fallbacks"]) if "fallbacks" in backend else None,
        "repeats": repeats.get("count"),
        "repeat_samples": repeats.get("samples"),
        "repeat_mismatches": repeats.get("mismatches"),
        "bytes_pushed": result.get("bytes_pushed"),
        "load_ns": result.get("load_ns"),
        "environment": attempt.environment,
        "engine": engine.get("name"),
        "version": engine.get("version"),
        "build": engine.get("native_sha256"),
        "threads": environment.get("threads"),
        "core": core(environment),
        "isa": " ".join(sorted(environment["isa_flags"])) if "isa_flags" in environment else None,
        **{key: environment.get(key) for key in ("machine", "os", "kernel", "python", "numpy")},
    }


def core(environment: Mapping[str, Any]) -> str | None:
    """Distinct cores: "0x41/0xd03, 0x41/0xd09" (ARM implementer/part), or x86 model names."""
    names = {
        f"{c['CPU implementer']}/{c['CPU part']}" if "CPU part" in c else c.get("model name")
        for c in environment.get("cores") or ()
    }
    return ", ".join(sorted(name for name in names if name)) or None


def verdict_rows(run: str, document: Json) -> Iterator[Row]:
    lineages = document.get("lineage", {})
    for row in document["rows"]:
        fp32, versus = row["fp32"] or {}, row["vs_reference"] or {}
        clean = (c["attempt"] for c in row["cells"] if c["condition"] == CLEAN)
        same = ("model", "file", "inputs", "device", "device_class", "emulated", "runtime")
        yield {
            **{key: row[key] for key in (*same, "status", "verdict", "is_reference", "reference")},
            "run": run,
            "row": row["id"],
            "attempt": next(clean, None),
            "reason": _first(row),
            "lineage": lineages.get(f"{row['model']}.{row['file']}", {}).get("verdict"),
            **_rate("accuracy", row["accuracy"]),
            **_rate("fp32_accuracy", fp32.get("accuracy")),
            **_rate("flips", fp32.get("disagreement")),
            "c_to_i": fp32.get("c_to_i"),
            "i_to_c": fp32.get("i_to_c"),
            **_rate("bit_exact", versus.get("bit_exact")),
            **_rate("disagreement", versus.get("disagreement")),
            "max_lsb": versus.get("max_lsb"),
            "mean_signed_lsb": versus.get("mean_signed_lsb"),
            "repeat_mismatches": (row["repeat"] or {}).get("mismatches"),
            "nonfinite": row["nonfinite"],
        }


def pair_rows(run: str, document: Json) -> Iterator[Row]:
    for pair in document["pairs"]:
        exact, attempts = pair["bit_exact_rate"], pair["attempts"]
        yield {
            **{key: pair[key] for key in ("model", "file", "inputs", "a", "b", "n", "max_lsb")},
            "run": run,
            "attempt_a": attempts[0] if len(attempts) == 2 else None,
            "attempt_b": attempts[1] if len(attempts) == 2 else None,
            "bit_exact": None if exact is None else round(exact * pair["n"]),
            **_rate("disagreement", pair["disagreement"]),
            "near_tie": (pair["near_tie"] or {}).get("k"),
        }


def _what(cell: CellInfo) -> Row:
    return {key: getattr(cell, key) for key in ("model", "file", "inputs", "condition", "runtime")}


def _rate(name: str, rate: Mapping[str, Any] | None) -> Row:
    return {f"{name}_{part}": (rate or {}).get(part) for part in ("k", "n", "low", "high")}


def _first(judged: Mapping[str, Any]) -> str | None:
    return next(iter(judged.get("reasons", ())), None)
