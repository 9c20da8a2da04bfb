"""Store → agreement: repeatability, reproducibility, and what each factor alone changes.

The document ``assay.agreement/1``; one study for each model file (by hash), inputs (by hash) and
task. Nothing is run and nothing is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase

from orchestrator.errors import AssayError, DamageError, NotAvailableError
from orchestrator.runs.answers import Standing, standings
from orchestrator.runs.observations import array
from orchestrator.runs.run import Run, every_run
from orchestrator.runs.subjects import Reader, Subject, subject_of
from orchestrator.store.database import Store
from orchestrator.store.records import Json
from orchestrator.variance import agreement as aaa
from orchestrator.variance import tasks
from orchestrator.variance.agreement import Rater
from orchestrator.variance.intervals import rate
from orchestrator.variance.matched import Moved, matched

SCHEMA = "assay.agreement/1"


@dataclass
class Trouble:
    """``damaged``: what cannot be read -> why. ``refused``: comparisons not made -> why."""

    damaged: dict[str, AssayError] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def agreement(
    store: Store, run_id: str | None = None, *, across: bool = False, model: str = "*"
) -> Json:
    """Agreement within a run, or with ``across`` over all runs that answered the same questions.

    ``run``: None is the newest, or with ``across`` every run there is. ``model``: a glob for
    ``model`` or ``model.file``. Raises InputError E-RUN-UNKNOWN, NotAvailableError
    E-AGREEMENT-NONE.
    """
    trouble = Trouble()
    chosen = None if across and run_id is None else store.run(run_id)
    runs = list(every_run(store)) if across else [Run(store, run_id)]
    unreadable: dict[str, AssayError] = {}
    groups: dict[Subject, list[Standing]] = defaultdict(list)
    for s in standings(runs, unreadable):
        names = (s.cell.model, f"{s.cell.model}.{s.cell.file}")
        if s.answer and any(fnmatchcase(name, model) for name in names):
            groups[subject_of(s, s.answer)].append(s)
    trouble.damaged.update(unreadable)
    if across and chosen is not None:
        groups = {k: v for k, v in groups.items() if any(s.run.id == chosen.id for s in v)}
    if not groups:
        raise NotAvailableError(
            "E-AGREEMENT-NONE",
            f"no finished answer of a model that fits {model!r}",
            where=chosen.id if chosen else None,
            fix="see what there is: assay logs, assay status --all",
        )
    _other_tasks(groups, trouble)
    references = _References(runs, trouble)
    studies = [
        _study(store, subject, found, references, trouble)
        for subject, found in sorted(groups.items(), key=lambda g: _name(g[1][0]))
    ]
    return {
        "schema": SCHEMA,
        "run": chosen.id if chosen else None,
        "across_runs": across,
        "runs": sorted({s.run.id for found in groups.values() for s in found}),
        "studies": studies,
        "refused": [{"what": k, "why": v} for k, v in trouble.refused.items()],
        "damaged": [
            {"what": k, "error_id": e.id, "error": str(e)} for k, e in trouble.damaged.items()
        ],
    }


class _References:
    """Attempt IDs of the rows that sign-off took as references; the newest run's come first."""

    def __init__(self, runs: Sequence[Run], trouble: Trouble) -> None:
        self.judged = False
        self.attempts: list[str] = []
        for run in runs:
            try:
                document = run.store.verdict(run.id)
            except DamageError as error:
                trouble.damaged[f"the verdict of {run.id}"] = error
                continue
            self.judged |= document is not None
            for row in (document or {}).get("rows", ()):
                self.attempts += row["attempts"] if row["is_reference"] else ()

    def among(self, raters: Sequence[Rater]) -> tuple[Rater | None, str]:
        """The reference, or None and why there is none; its longest answer speaks."""
        known = {r.attempt: r for r in raters}
        named = [known[a] for a in self.attempts if a in known]
        if named:
            return max(named, key=lambda r: r.n), ""
        why = "sign-off took none of these for a reference" if self.judged else "not signed off yet"
        return None, why


def _study(
    store: Store,
    subject: Subject,
    found: Sequence[Standing],
    references: _References,
    trouble: Trouble,
) -> Json:
    reader, task = Reader(store, subject.task, found), subject.task
    raters = []
    for s, answer in ((s, s.answer) for s in found if s.answer):
        try:
            raters.append(reader.rater(answer))
        except DamageError as error:
            trouble.damaged[f"{s.cell.id} of {s.run.id}"] = error
        except tasks.TaskError as error:
            trouble.refused[f"{s.cell.id} of {s.run.id}"] = error.what
    reference, why = references.among(raters)
    newest = max(found, key=lambda s: s.time)
    return {
        "model": newest.cell.model,
        "file": newest.cell.file,
        "inputs": newest.cell.inputs,
        "file_sha256": subject.file_sha256,
        "inputs_sha256": list(subject.inputs_sha256),
        "raters": [
            {"attempt": r.attempt, "n": r.n, "name": r.factors.text(), **vars(r.factors)}
            for r in raters
        ],
        "within": [_plain(a) for a in aaa.within(task, raters)],
        "passes": _passes(found),
        "between": [_plain(a) for a in aaa.between(task, raters)],
        "reference": reference.attempt if reference else None,
        "no_reference": why or None,
        "against_reference": _against(aaa.against(task, raters, reference) if reference else []),
        "against_truth": _against(_truth(store, reader, task, found, raters, trouble)),
        "matched": [asdict(m) for m in _matched(reader, task, raters, trouble, newest)],
    }


def _matched(
    reader: Reader, task: tasks.Task, raters: Sequence[Rater], trouble: Trouble, s: Standing
) -> list[Moved]:
    try:
        return matched(task, raters, reader.compare)
    except tasks.TaskError as error:
        trouble.refused[f"{_name(s)} in matched pairs"] = error.what
        return []


def _truth(
    store: Store,
    reader: Reader,
    task: tasks.Task,
    found: Sequence[Standing],
    raters: Sequence[Rater],
    trouble: Trouble,
) -> list[aaa.Against]:
    name = f"{_name(found[0])} against the truth"
    labels = {s.run.frozen.staging.sets[s.cell.inputs].labels for s in found} - {None}
    if len(labels) > 1:
        trouble.refused[name] = f"the runs hold {len(labels)} different sets of labels for it"
    if len(labels) != 1 or not raters:
        return []
    try:
        truth = array(store, str(labels.pop()))
        reader.check_labels(max(raters, key=lambda r: r.n), truth)
        return aaa.against_truth(task, raters, truth)
    except DamageError as error:
        trouble.damaged[name] = error
    except tasks.TaskError as error:
        trouble.refused[name] = error.what
    return []


def _passes(found: Sequence[Standing]) -> list[Json]:
    """Later passes inside one attempt whose bytes differ from the first, of those with any."""
    told = []
    for answer in (s.answer for s in found if s.answer):
        repeats = (answer.attempt.result or {})["repeats"]
        compared = (repeats["count"] - 1) * repeats["samples"]
        if compared:
            told.append(
                {
                    "attempt": answer.attempt.id,
                    "name": answer.factors.text(),
                    "passes": repeats["count"],
                    "samples": repeats["samples"],
                    "different": asdict(rate(repeats["mismatches"], compared)),
                }
            )
    return told


def _other_tasks(groups: dict[Subject, list[Standing]], trouble: Trouble) -> None:
    """Names the files whose runs decide differently by design: each task is a study of its own."""
    seen: dict[tuple[str, tuple[str, ...]], list[Standing]] = defaultdict(list)
    for subject, found in groups.items():
        seen[subject.file_sha256, subject.inputs_sha256].append(found[0])
    for others in seen.values():
        if len(others) > 1:
            runs = ", ".join(s.run.id for s in others)
            trouble.refused[f"{_name(others[0])} between {runs}"] = (
                "they have other task settings or other names for the classes"
            )


def _name(s: Standing) -> str:
    return f"{s.cell.model}.{s.cell.file} on {s.cell.inputs}"


def _plain(found: aaa.Agreement) -> Json:
    return {**asdict(found), "fixed": dict(found.fixed)}


def _against(found: Sequence[aaa.Against]) -> list[Json]:
    return [
        {
            "attempt": a.attempt,
            "name": a.factors.text(),
            "n": a.n,
            "agree": asdict(a.agree),
            "kappa": None if a.kappa is None else asdict(a.kappa),
        }
        for a in found
    ]
