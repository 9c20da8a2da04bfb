"""Store → history: when a device or a model was seen, and whether its answers stayed the same.

The document ``assay.history/1``. A question is a model file and inputs (by hash) asked of one unit
in one condition and one way of computing (runtime, threads, kernels, reset); versions and systems
may change in between.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.errors import AssayError, DamageError, InputError
from orchestrator.runs.answers import Answer, Standing, standings
from orchestrator.runs.observations import sample_hashes
from orchestrator.runs.run import every_run
from orchestrator.store.database import Store
from orchestrator.store.records import Json
from orchestrator.variance import changes
from orchestrator.variance.intervals import rate

SCHEMA = "assay.history/1"
SHOWN = 20
"""Names that an error line lists at most."""
Asked = tuple[Standing, Answer]


def history(store: Store, name: str) -> Json:
    """``name``: a unit, a model, or ``model.file``. Raises InputError E-HISTORY-NAME."""
    damaged: dict[str, AssayError] = {}
    unreadable: dict[str, AssayError] = {}
    found, known = [], set()
    for s in standings(every_run(store), unreadable):
        names = {s.row.device, s.cell.model, f"{s.cell.model}.{s.cell.file}"}
        known |= names
        if name in names:
            found.append(s)
    damaged.update(unreadable)
    if not found:
        raise _unknown(name, known)
    found.sort(key=lambda s: s.time)
    rows: dict[tuple[str, str], list[Standing]] = defaultdict(list)
    for s in found:
        rows[s.row.device, f"{s.cell.model}.{s.cell.file}"].append(s)
    return {
        "schema": SCHEMA,
        "name": name,
        "runs": list(dict.fromkeys(s.run.id for s in found)),
        "rows": [_row(store, *key, rows[key], damaged) for key in sorted(rows)],
        "damaged": [{"what": k, "error_id": e.id, "error": str(e)} for k, e in damaged.items()],
    }


def _row(
    store: Store, device: str, file: str, found: Sequence[Standing], damaged: dict[str, AssayError]
) -> Json:
    questions: dict[tuple[Any, ...], list[Asked]] = defaultdict(list)
    versions: dict[str, list[str | None]] = defaultdict(list)
    for s in found:
        if s.answer is None:
            continue
        f = s.answer.factors
        asked = (s.answer.file_sha256, s.answer.inputs_sha256, s.row.condition)
        questions[(*asked, f.way)].append((s, s.answer))
        if f.version not in versions[f.runtime]:
            versions[f.runtime].append(f.version)
    again = [answers for answers in questions.values() if len(answers) > 1]
    return {
        "device": device,
        "device_class": found[-1].row.device_class,
        "emulated": found[-1].row.emulated,
        "file": file,
        "first_unix": found[0].time,
        "last_unix": found[-1].time,
        "runs": len({s.run.id for s in found}),
        "outcomes": dict(sorted(Counter(s.outcome for s in found).items())),
        "versions": dict(sorted(versions.items())),
        "questions": len(questions),
        "asked_again": len(again),
        "unchanged": sum(len({a.content for _, a in answers}) == 1 for answers in again),
        "steps": [step for answers in again for step in _steps(store, answers, damaged)],
    }


def _steps(store: Store, answers: Sequence[Asked], damaged: dict[str, AssayError]) -> list[Json]:
    told = []
    for step in changes.steps([(a.content, a.environment) for _, a in answers]):
        was, now = answers[step.index - 1], answers[step.index]
        f = now[1].factors
        told.append(
            {
                **asdict(f.way),
                "condition": now[0].row.condition,
                "inputs": now[0].cell.inputs,
                "run": now[0].run.id,
                "before": was[1].attempt.id,
                "after": now[1].attempt.id,
                "identical": step.identical,
                "different": None if step.identical else _different(store, was, now, damaged),
                "changes": [asdict(change) for change in step.changes],
            }
        )
    return told


def _different(store: Store, was: Asked, now: Asked, damaged: dict[str, AssayError]) -> Json | None:
    """Samples whose output bytes differ, of those in both; None where that cannot be read."""
    hashes = []
    for s, answer in (was, now):
        try:
            hashes.append(sample_hashes(store, answer.attempt))
        except DamageError as error:
            damaged[f"{s.cell.id} of {s.run.id}"] = error
            return None
    n = min(map(len, hashes))
    return asdict(rate(int((hashes[0][:n] != hashes[1][:n]).any(axis=1).sum()), n))


def _unknown(name: str, known: set[str]) -> InputError:
    listed = sorted(known)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return InputError(
        "E-HISTORY-NAME",
        f"no finished cell of a device or model {name!r}",
        fix=f"known: {', '.join(listed[:SHOWN]) or 'none'}{more}",
    )
