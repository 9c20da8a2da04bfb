"""Store → variance → sign-off → document: what a run's attempts amount to.

A verdict is a function of the attempts, the policy and nothing else, so it may be asked again at
any time, of a run that is still going on as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.analysis import document
from orchestrator.conditions import CLEAN, parse
from orchestrator.errors import AssayError, DamageError
from orchestrator.matrix.by_class import ByClass
from orchestrator.matrix.environment import clock_note
from orchestrator.matrix.policy import Policy
from orchestrator.queue.states import CellState
from orchestrator.runs.baselines import Baseline
from orchestrator.runs.observations import observation_or_error, truth_of
from orchestrator.runs.run import Run
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.signoff.judge import judge
from orchestrator.store import series
from orchestrator.store.arrays import malformed
from orchestrator.store.digests import taken_apart
from orchestrator.store.records import AttemptInfo, CellInfo, Json, Reading, sha256_of
from orchestrator.store.uses import DATABASE
from orchestrator.variance.observation import Observation, Truth

MEASURED_ONLY = Policy.model_validate({"name": "(no policy: measured only)", "reference": []})
"""Names no reference, so no row can pass: a verdict needs somebody's policy."""

SENSORS = ("temp", "power", "battery", "flags", "status")
"""Kinds of sensors whose start, end and maximum stand in the document, for every attempt."""

Compute = Callable[..., Future[Any]]


def conclude(
    run: Run,
    parents: Mapping[tuple[str, str], Baseline],
    compute: Compute,
    policy: Policy | None = None,
    known: Mapping[str, AssayError] = MappingProxyType({}),
) -> Json:
    """The result document (``assay.result/1``) of a run as it stands.

    A damaged artefact or record costs what it held, no more: a row's outputs (the row is then an
    error), an FP32 baseline, an attempt's latency or telemetry. The document names each, and what
    was ``known`` beforehand; where the database itself is damaged, nothing passes.
    Kept as the run's verdict, unless it was asked for under another ``policy`` than the run's own.
    """
    store, frozen, attempts = run.store, run.frozen, run.attempts
    cells = [_as_planned(frozen, cell) for cell in run.cells]
    observations = [observation_or_error(run, cell) for cell in cells]
    truths = {
        (model, inputs): truth_of(run, model, inputs, parents.get((model, inputs)))
        for model, inputs in sorted({(c.model, c.inputs) for c in cells})
    }
    signoff = compute(
        _judge, policy or frozen.policy, observations, truths, frozen.by_class
    ).result()
    rows = {a: row["id"] for row in signoff["rows"] for a in row["attempts"]}
    damage_of: dict[str, dict[str, DamageError]] = {"latency": {}, "telemetry": {}}
    latency = series.latency(store, run.id, damage_of["latency"])
    telemetry = series.telemetry(store, run.id, damage_of["telemetry"])
    for attempt, ns in list(latency.items()):
        if why := _unfit(attempts[attempt], ns, observations):
            damage_of["latency"][attempt] = malformed(f"latency_ns of attempt {attempt}", why)
            del latency[attempt]
    damaged = run.damaged | {
        f"{name} of {attempts[attempt].cell}": error
        for name, found in damage_of.items()
        for attempt, error in found.items()
    }
    environments: dict[str, Json] = {}
    for e in sorted({a.environment for a in attempts.values() if a.environment}):
        try:
            environments[e] = store.environment_data(e)
        except DamageError as error:
            damaged[f"environment {e}"] = error
    # An attempt that does not count for its cell may be damaged as well.
    lost = {f"attempt {a.id} of {a.cell}": a.damage for a in attempts.values() if a.damage}
    named = {str(error) for error in damaged.values()}
    damaged |= {what: e for what, e in (lost | dict(known)).items() if str(e) not in named}
    if DATABASE in damaged and signoff["verdict"] == "pass":
        why = f"what it rests on is damaged: {damaged[DATABASE]}"
        signoff = {**signoff, "verdict": "error", "reasons": [why, *signoff["reasons"]]}
    info = store.run(run.id)  # its state may have changed since it was read
    result = document.build(
        run={
            "id": run.id,
            "name": info.name,
            "created_unix": info.created,
            "state": info.state.value,
            "matrix_sha256": sha256_of(store.frozen(run.id)),
        },
        signoff=signoff,
        coverage=_coverage(cells),
        latency=_latency(latency, rows, cells, attempts, observations),
        traces=_traces(latency, telemetry, rows, cells),
        attempts=[_attempt(a) for a in attempts.values()],
        environments=environments,
        compiled={
            key: {**model.compiled.model_dump(), "text": model.compiled.text()}
            for key, model in sorted(frozen.staging.models.items())
            if model.compiled is not None
        },
        signatures={
            key: told
            for key, model in sorted(frozen.staging.models.items())
            if (told := model.only_part()) is not None
        },
        lineage={
            key: model.lineage.model_dump()
            for key, model in sorted(frozen.staging.models.items())
            if model.lineage is not None
        },
        by_class=_by_class(frozen.by_class, signoff["rows"], latency),
        damaged=[
            {"what": what, "error_id": error.id, "error": str(error)}
            for what, error in damaged.items()
        ],
    )
    if policy is None:
        store.save_verdict(run.id, result)
    return result


def _as_planned(frozen: FrozenRun, cell: CellInfo) -> CellInfo:
    """A damaged cell keeps its ID, which tells its names. Raises DamageError where it does not."""
    if cell.damage is None:
        return cell
    names = frozen.names_of(cell.id)
    if names is None:
        raise cell.damage
    return replace(cell, **names)


def _unfit(
    attempt: AttemptInfo, ns: NDArray[np.int64], observations: Sequence[Observation]
) -> str | None:
    """Why latencies cannot be those of an attempt; None where they can."""
    if attempt.damage:
        return "its record is damaged"
    seen = next((o for o in observations if o.attempt == attempt.id and o.outputs), None)
    if seen and len(ns) != (n := len(seen.outputs[0].values)):
        return f"{len(ns)} latencies for {n} samples"
    return "not every latency is more than 0" if (ns <= 0).any() else None


def _judge(
    policy: Policy | None,
    observations: Sequence[Observation],
    truths: Mapping[tuple[str, str], Truth],
    by_class: ByClass | None,
) -> Json:
    return judge(policy or MEASURED_ONLY, observations, truths, by_class).to_json()


def _coverage(cells: Sequence[CellInfo]) -> dict[str, int]:
    count = Counter(c.outcome.value if c.outcome else CellState.PENDING.value for c in cells)
    return {"planned": len(cells), **count}


def _by_class(
    planned: ByClass | None, rows: Sequence[Json], latency: Mapping[str, NDArray[np.int64]]
) -> Json | None:
    """What spot checks came to. ``saved_s``: at the mean latency of each unit's own spot check."""
    if planned is None:
        return None
    told = [(row, s) for row in rows if (s := row["by_class"])]
    covered = [(row, s) for row, s in told if s["standing"] == "covered"]
    timed = [(s, latency[s["spot"]].mean()) for _, s in covered if s["spot"] in latency]
    return {
        "confidence": planned.confidence,
        "share": planned.share,
        **{
            name: sum(s["standing"] == name for _, s in told)
            for name in ("representative", "covered", "left", "alone")
        },
        "saved_inferences": sum(s["of"] - s["drawn"] for _, s in covered),
        "saved_s": round(sum((s["of"] - s["drawn"]) * float(ns) for s, ns in timed) / 1e9, 3),
        "emulated": any(row["emulated"] for row, _ in covered),
    }


def _latency(
    latency: Mapping[str, NDArray[np.int64]],
    rows: Mapping[str, str],
    cells: Sequence[CellInfo],
    attempts: Mapping[str, AttemptInfo],
    observations: Sequence[Observation],
) -> dict[str, Json]:
    """Percentiles over the clean cell's first pass, microseconds."""
    timed = _timed(cells)
    emulated = {o.attempt: o.row.emulated for o in observations}
    found: dict[str, Json] = {}
    for attempt, ns in latency.items():
        if attempt not in timed or attempt not in rows or not len(ns):
            continue
        p50, p90, p99 = np.percentile(np.asarray(ns) / 1000.0, (50, 90, 99))
        found[rows[attempt]] = {
            "n": len(ns),
            "p50_us": round(float(p50), 3),
            "p90_us": round(float(p90), 3),
            "p99_us": round(float(p99), 3),
            "emulated": emulated.get(attempt, False),
            "timing_valid": bool(attempts[attempt].timing_valid),
        }
    return found


def _traces(
    latency: Mapping[str, NDArray[np.int64]],
    telemetry: Mapping[str, list[Reading]],
    rows: Mapping[str, str],
    cells: Sequence[CellInfo],
) -> list[Json]:
    traces = []
    for attempt in sorted(_timed(cells) & set(rows) & set(latency), key=lambda a: rows[a]):
        readings = telemetry.get(attempt, [])
        times = sorted({r.t_s for r in readings})
        at = {t: i for i, t in enumerate(times)}
        read_by: dict[str, dict[str, list[float | None]]] = {
            "temp": {},
            "freq": {},
            "power": {},
        }
        for reading in readings:
            kind, _, name = reading.sensor.partition("/")
            if kind in read_by:
                read_by[kind].setdefault(name, [None] * len(times))[at[reading.t_s]] = reading.value
        traces.append(
            {
                "row": rows[attempt],
                "attempt": attempt,
                "t_s": times,
                "temp_c": read_by["temp"],
                "freq_khz": read_by["freq"],
                "power_mw": read_by["power"],
                "latency_us": [round(ns / 1000, 3) for ns in latency[attempt]],
            }
        )
    return traces


def _timed(cells: Sequence[CellInfo]) -> set[str]:
    """Attempts whose latencies are their row's: of the clean cell, or of what ran in its place."""
    found: dict[tuple[str, ...], str] = {}
    for c in sorted(cells, key=lambda c: c.condition == CLEAN):
        if c.attempt is not None and parse(c.condition).timed:
            found[c.slot, c.model, c.file, c.inputs, c.runtime] = c.attempt
    return set(found.values())


def _attempt(attempt: AttemptInfo) -> Json:
    result = attempt.result or {}
    try:
        with taken_apart(attempt):
            notes, sensors = _notes(result), _sensors(result)
    except DamageError as error:
        notes, sensors = [str(error)], {}
    return {
        "id": attempt.id,
        "cell": attempt.cell,
        "device": attempt.device,
        "outcome": attempt.state.value,
        "error_id": attempt.error_id,
        "error": attempt.error,
        "notes": [*notes, *_unwitnessed(attempt), *_offline(attempt.offline)],
        "offline": attempt.offline is not None,
        "sensors": sensors,
        "digest": attempt.digest,
        "bytes_pushed": result.get("bytes_pushed"),
        "environment": attempt.environment,
        "number": attempt.number,
        "started_unix": attempt.started,
        "ended_unix": attempt.ended,
    }


def _unwitnessed(attempt: AttemptInfo) -> list[str]:
    if attempt.witnessed or attempt.damage or not attempt.state.final:
        return []
    return ["unwitnessed: an older Assay wrote it, and nothing shows that it is what was written"]


def _offline(nonce: str | None) -> list[str]:
    if nonce is None:
        return []
    return [f"run by hand, out of the farm's reach (archive {nonce[:8]}); times by its own clock"]


def _notes(result: Json) -> list[str]:
    """What a reader of an attempt's numbers should know of how they came about."""
    clock = clock_note(result.get("clock_offset_s"))
    return [
        *result.get("timing_notes", []),
        *result.get("telemetry", {}).get("reasons", []),
        *result.get("notes", []),
        *([result["recovered"]] if result.get("recovered") else []),
        *([clock] if clock else []),
    ]


def _sensors(result: Json) -> dict[str, Json]:
    """Start, end and highest of what tells heat and power; null is unreadable."""
    told = result.get("telemetry", {})
    return {
        name: {at: told.get(at, {}).get(name) for at in ("start", "end", "max")}
        for name in sorted(told.get("max", {}))
        if name.partition("/")[0] in SENSORS
    }
