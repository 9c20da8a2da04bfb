"""The clean answers of a run, in sets of rows that may be compared; the form of every view."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from orchestrator.conditions import CLEAN
from orchestrator.errors import NotAvailableError
from orchestrator.matrix.policy import Policy
from orchestrator.runs.observations import observations
from orchestrator.runs.run import Run
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.signoff.case import Case, baseline, cases
from orchestrator.signoff.result import plain
from orchestrator.store.database import Store
from orchestrator.variance.answers import Answers
from orchestrator.variance.bootstrap import RESAMPLES
from orchestrator.variance.observation import Truth
from orchestrator.variance.softmax import Head, head

SCHEMA = "assay.variance/1"
SEED = 0
CONFIDENCE = 0.95
DEFAULT = Policy(name="defaults")

Json = dict[str, Any]
Rows = Sequence[tuple[Case, Answers]]
Given = Mapping[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, eq=False)
class Set:
    """Rows that may be compared: one model file on one input set, and what is known of it.

    ``given``, over several runs: row ID -> (run, attempt) each time it was given, newest first.
    ``lineage``: whether the file's weights come from the parent's; None without a parent, and of a
    run made before that was told.
    """

    model: str
    file: str
    inputs: str
    rows: Rows
    parent: tuple[Answers, Head] | None
    truth: Truth
    given: Given
    lineage: Json | None


@dataclass(frozen=True, eq=False)
class Loaded:
    """The rows of one question, and what could not be read for it.

    ``run``: the run asked about, all None where none was. ``problems``: rows, cells and runs
    without an answer, each with its reason. ``policy``: whose limits apply. ``runs``: where the
    rows come from several runs.
    """

    run: Json
    sets: tuple[Set, ...]
    problems: tuple[Json, ...]
    policy: Policy = DEFAULT
    runs: tuple[str, ...] = ()


def load(store: Store, run: str | None) -> Loaded:
    """The clean cells of a run. Raises NotAvailableError E-VARIANCE-EMPTY where none has ended."""
    return load_rows(Run(store, run))


def load_rows(run: Run) -> Loaded:
    """As ``load``, of a run that is read already."""
    found = [(o, t) for o, t in observations(run) if o.row.condition == CLEAN]
    problems = [{"what": what, "problem": str(error)} for what, error in run.damaged.items()]
    truths = {(o.row.model, o.row.inputs): truth for o, truth in found}
    groups: dict[Any, list[tuple[Case, Answers]]] = defaultdict(list)
    for case in cases([o for o, _ in found], truths):
        if case.answers is None:
            problems.append({"what": case.id, "problem": case.problem})
        else:
            groups[case.group].append((case, case.answers))
    if not groups:
        raise NotAvailableError(
            "E-VARIANCE-EMPTY",
            "no clean cell of this run has an answer",
            where=run.id,
            fix="assay logs says what became of them",
        )
    sets = tuple(
        set_of(key, rows, truths[key[0], key[2]], lineage=lineage_of(run.frozen, key[0], key[1]))
        for key, rows in groups.items()
    )
    told = {"id": run.id, "name": run.info.name, "state": run.info.state.value}
    return Loaded(told, sets, tuple(problems), run.frozen.policy or DEFAULT)


def lineage_of(frozen: FrozenRun, model: str, file: str) -> Json | None:
    found = frozen.staging.models[f"{model}.{file}"].lineage
    return None if found is None else found.model_dump()


def set_of(
    key: tuple[str, str, str, str],
    rows: Rows,
    truth: Truth,
    given: Given = MappingProxyType({}),
    lineage: Json | None = None,
) -> Set:
    """``key``: the rows' common `Case.group`; one row at least."""
    parent = baseline(truth).answers
    with_head = None if parent is None else (parent, head(parent))
    return Set(key[0], key[1], key[2], rows, with_head, truth, given, lineage)


def document(loaded: Loaded, by: str, sets: Sequence[Json]) -> Json:
    """``by``: what the view is of."""
    return cast(
        "Json",
        plain(
            {
                "schema": SCHEMA,
                "run": loaded.run,
                "across_runs": bool(loaded.runs),
                "runs": list(loaded.runs) or [loaded.run["id"]],
                "by": by,
                "seed": SEED,
                "resamples": RESAMPLES,
                "sets": list(sets),
                "problems": list(loaded.problems),
            }
        ),
    )


def named(s: Set) -> Json:
    """What a set is of, and what a loss against its FP32 parent means."""
    names = {"model": s.model, "file": s.file, "inputs": s.inputs}
    return {**names, "n": s.rows[0][1].n, "lineage": s.lineage}


def described(s: Set, case: Case, answers: Answers) -> Json:
    """Who a row is, and what its numbers come from; ``same_as``: the first row of equal bytes.

    ``runs``: over several, those in which the unit gave this answer, newest first.
    """
    times = s.given.get(case.id, ())
    first = next(row.id for row, found in s.rows if found.digest == answers.digest)
    r = case.row
    return {
        "id": case.id,
        "device": r.device,
        "device_class": r.device_class,
        "emulated": r.emulated,
        "runtime": r.runtime,
        "runs": [run for run, _ in times],
        "attempts": [attempt for _, attempt in times] or list(case.clean_attempts),
        "same_as": None if first == case.id else first,
    }
