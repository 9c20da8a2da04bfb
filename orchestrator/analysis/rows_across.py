"""The clean answers of every run of a store, in the sets and the form that the views take.

A row is an answer of a unit with a runtime configuration: the same bytes given again in other runs
are the same row, other bytes another one, told by its newest run. So the size of a view follows
what differed, not how often it was asked, and a unit that changed its answer meets itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from orchestrator.analysis.rows_load import DEFAULT, Json, Loaded, Set, lineage_of, set_of
from orchestrator.conditions import CLEAN
from orchestrator.errors import AssayError, DamageError, NotAvailableError
from orchestrator.runs.answers import Answer, Standing, standings
from orchestrator.runs.observations import outputs, truth_of
from orchestrator.runs.run import Run, every_run
from orchestrator.runs.subjects import Subject, subject_of
from orchestrator.signoff.case import Case
from orchestrator.store.database import Store
from orchestrator.variance import answers as reading
from orchestrator.variance.answers import Answers
from orchestrator.variance.observation import Observation, Truth
from orchestrator.variance.tasks import TaskError

Given = list[tuple[Standing, Answer]]


def load_across(store: Store, run: str | None) -> Loaded:
    """Rows of all runs that asked what ``run`` asked (None: of every run).

    That is the same bytes of a model file on the same inputs for the same task. Names, labels,
    slices and FP32 parent are those of ``run``, or of the newest. Raises InputError E-RUN-UNKNOWN,
    NotAvailableError E-VARIANCE-EMPTY.
    """
    chosen = None if run is None else Run(store, run)
    unreadable: dict[str, AssayError] = {}
    groups: dict[Subject, Given] = defaultdict(list)
    for s in standings(every_run(store), unreadable):
        if s.cell.condition == CLEAN and s.answer:
            groups[subject_of(s, s.answer)].append((s, s.answer))
    problems = [{"what": id, "problem": str(error)} for id, error in unreadable.items()]
    sets = []
    for subject, found in groups.items():
        if chosen and all(s.run.id != chosen.id for s, _ in found):
            continue
        if one := _set(store, subject, found, chosen, problems):
            sets.append(one)
    if not sets:
        raise NotAvailableError(
            "E-VARIANCE-EMPTY",
            "no clean cell of these runs has an answer",
            where=chosen.id if chosen else None,
            fix="see what there is: assay status --all",
        )
    sets.sort(key=lambda s: (s.model, s.file, s.inputs))
    told: Json = {"id": None, "name": None, "state": None}
    policy = None
    if chosen:
        told = {"id": chosen.id, "name": chosen.info.name, "state": chosen.info.state.value}
        policy = chosen.frozen.policy
    runs = {run for s in sets for times in s.given.values() for run, _ in times}
    return Loaded(told, tuple(sets), tuple(problems), policy or DEFAULT, tuple(sorted(runs)))


def _set(
    store: Store, subject: Subject, found: Given, chosen: Run | None, problems: list[Json]
) -> Set | None:
    # Runs come newest first.
    anchor = next((s for s, _ in found if chosen and s.run.id == chosen.id), found[0][0])
    cell, run, before = anchor.cell, anchor.run, len(anchor.run.damaged)
    truth = truth_of(run, cell.model, cell.inputs, run.parents.get((cell.model, cell.inputs)))
    problems += [
        {"what": f"{what} of {run.id}", "problem": str(error)}
        for what, error in list(run.damaged.items())[before:]
    ]
    rows, given = _rows(store, subject, found, truth, problems)
    if not rows:
        return None
    key = cell.model, cell.file, cell.inputs, subject.file_sha256
    return set_of(key, rows, truth, given, lineage_of(run.frozen, cell.model, cell.file))


def _rows(
    store: Store, subject: Subject, found: Given, truth: Truth, problems: list[Json]
) -> tuple[list[tuple[Case, Answers]], dict[str, tuple[tuple[str, str], ...]]]:
    times: dict[tuple[str, str, str], Given] = defaultdict(list)
    for s, answer in found:
        times[s.row.device, s.row.runtime, answer.content].append((s, answer))
    several = Counter((device, runtime) for device, runtime, _ in times)
    read: dict[str, Answers | str] = {}
    rows, given = [], {}
    for (device, runtime, content), each in sorted(times.items(), key=lambda t: t[0][:2]):
        s, answer = each[0]
        if content not in read:
            read[content] = _read(store, subject, s, answer, truth)
        answers = read[content]
        id = f"{s.cell.model}.{s.cell.file}@{device}/{runtime}"
        if several[device, runtime] > 1:
            id += f" of {s.run.id}"
        id += f"[{s.cell.inputs}]" if id in given else ""
        if isinstance(answers, str):
            problems.append({"what": id, "problem": answers})
            continue
        clean = Observation(
            s.row, s.cell.id, "ok", answer.attempt.id, file_sha256=subject.file_sha256
        )
        rows.append((Case(id, s.row, (clean,), clean, answers, ""), answers))
        given[id] = tuple((s.run.id, answer.attempt.id) for s, answer in each)
    return rows, given


def _read(
    store: Store, subject: Subject, s: Standing, answer: Answer, truth: Truth
) -> Answers | str:
    """A string says why it cannot be read."""
    try:
        tensors = outputs(s.run, s.cell, answer.attempt)
        return reading.read(subject.task, tensors, truth.labels, truth.inputs)
    except DamageError as error:
        return str(error)
    except TaskError as error:
        return error.what
