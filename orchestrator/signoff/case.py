"""One row under judgement: its cells over all conditions, and what its outputs answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.conditions import CLEAN
from orchestrator.variance import answers as reading
from orchestrator.variance.answers import Answers
from orchestrator.variance.observation import Observation, Row, Truth
from orchestrator.variance.tasks import TaskError

STATUSES = (
    "model_error",
    "infra_error",
    "timeout",
    "cancelled",
    "pending",
    "not_available",
    "ok",
)
Group = tuple[str, str, str, str]


@dataclass(frozen=True, eq=False)
class Case:
    """The cells of a row, and its clean answers.

    ``cells`` in order of condition. ``clean``: its ok cell of condition "clean"; ``answers``: what
    that answered, or None and ``problem`` why.
    """

    id: str
    row: Row
    cells: tuple[Observation, ...]
    clean: Observation | None
    answers: Answers | None
    problem: str

    @property
    def status(self) -> str:
        """The gravest status among the cells."""
        return min((c.status for c in self.cells), key=STATUSES.index)

    @property
    def attempts(self) -> tuple[str, ...]:
        return tuple(c.attempt for c in self.cells if c.attempt)

    @property
    def clean_attempts(self) -> tuple[str, ...]:
        return (self.clean.attempt,) if self.clean and self.clean.attempt else ()

    @property
    def group(self) -> Group:
        """Rows that may be compared: the same bytes of the same model file on the same inputs."""
        sha256 = self.clean.file_sha256 if self.clean else ""
        return (self.row.model, self.row.file, self.row.inputs, sha256)


@dataclass(frozen=True, eq=False)
class Baseline:
    """The FP32 parent's answers, or None and ``problem`` why."""

    answers: Answers | None
    attempts: tuple[str, ...]
    problem: str


def baseline(truth: Truth) -> Baseline:
    attempts = (truth.fp32_attempt,) if truth.fp32_attempt else ()
    if truth.fp32 is None:
        return Baseline(None, attempts, truth.fp32_error or "no FP32 parent was run")
    try:
        found = reading.read(truth.task, truth.fp32, truth.labels, truth.inputs)
    except TaskError as error:
        return Baseline(None, attempts, f"FP32 parent: {error.what}")
    return Baseline(found, attempts, "")


def cases(
    observations: Sequence[Observation], truths: Mapping[tuple[str, str], Truth]
) -> list[Case]:
    """Rows in order of their ids.

    An id is ``model.file@device/runtime``, with the input set's name in brackets where a model file
    has several. Raises ValueError when two cells claim the same row and condition, KeyError when a
    (model, inputs) has no truth: both are the caller's mistakes.
    """
    rows: dict[tuple[str, ...], list[Observation]] = defaultdict(list)
    inputs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for o in observations:
        r = o.row
        rows[(r.model, r.file, r.device, r.runtime, r.inputs)].append(o)
        inputs[(r.model, r.file)].add(r.inputs)
    found = []
    for (model, file, device, runtime, input_set), cells in rows.items():
        id = f"{model}.{file}@{device}/{runtime}"
        if len(inputs[(model, file)]) > 1:
            id += f"[{input_set}]"
        found.append(_case(id, cells, truths[(model, input_set)]))
    return sorted(found, key=lambda case: case.id)


def _case(id: str, cells: list[Observation], truth: Truth) -> Case:
    cells = sorted(cells, key=lambda o: o.row.condition)
    conditions = [o.row.condition for o in cells]
    if len(set(conditions)) < len(conditions):
        raise ValueError(f"two cells of {id} have the same condition: {conditions}")
    unknown = {o.status for o in cells}.difference(STATUSES)
    if unknown:
        raise ValueError(f"{id}: unknown status {sorted(unknown)}")
    row = cells[0].row
    clean, problem = _clean(cells)
    if clean is None:
        return Case(id, row, tuple(cells), None, None, problem)
    try:
        found = reading.read(truth.task, clean.outputs, truth.labels, truth.inputs)
    except TaskError as error:
        return Case(id, row, tuple(cells), clean, None, error.what)
    return Case(id, row, tuple(cells), clean, found, "")


def _clean(cells: list[Observation]) -> tuple[Observation | None, str]:
    clean = next((o for o in cells if o.row.condition == CLEAN), None)
    if clean is None:
        if any(o.samples is not None for o in cells):
            return None, "only some of its samples were run, as a spot check"
        return None, "the matrix has no 'clean' cell for it"
    if clean.status != "ok":
        return None, f"its clean cell is {clean.status}"
    if not clean.codes_valid:
        return None, "its outputs are marked invalid"
    if len({o.file_sha256 for o in cells if o.status == "ok"}) > 1:
        return None, "its cells ran different bytes of the model file"
    return clean, ""
