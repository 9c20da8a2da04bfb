"""From standings to raters: what each answer decided, read once for each distinct answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from orchestrator.runs.answers import Answer, Standing
from orchestrator.runs.observations import array, outputs, sample_hashes
from orchestrator.store.arrays import malformed
from orchestrator.store.database import Store
from orchestrator.variance import answers as reading
from orchestrator.variance import tasks
from orchestrator.variance.agreement import Rater
from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import Array
from orchestrator.variance.matched import Elements, elements
from orchestrator.variance.tasks import task_of

KEPT = 8
"""Answers held in memory at once: pairs are compared in an order that reuses them."""


@dataclass(frozen=True)
class Subject:
    """What raters have in common. ``classes``: the names of the decisions, where there are any."""

    file_sha256: str
    inputs_sha256: tuple[str, ...]
    task: tasks.Task
    classes: tuple[str, ...] | None


def subject_of(s: Standing, answer: Answer) -> Subject:
    """The study that an answer belongs to."""
    spec = s.run.frozen.matrix.model(s.cell.model).task.model_dump()
    classes = tuple(spec["labels"]) if spec.get("labels") else None
    return Subject(answer.file_sha256, answer.inputs_sha256, task_of(spec), classes)


class Reader:
    """Answers by content ID, the last KEPT of them held."""

    def __init__(self, store: Store, task: tasks.Task, found: Sequence[Standing]) -> None:
        self._store, self._task = store, task
        self._known = {s.answer.content: (s, s.answer.attempt) for s in found if s.answer}
        self._content: dict[str, str] = {}
        self._load = lru_cache(maxsize=KEPT)(self._read)
        self._compare = lru_cache(maxsize=None)(self._elements)

    def _read(self, content: str) -> Answers:
        s, attempt = self._known[content]
        inputs = None
        if isinstance(self._task, tasks.Anomaly):
            inputs = array(self._store, s.run.frozen.staging.sets[s.cell.inputs].x)
        tensors = outputs(s.run, s.cell, attempt)
        if inputs is not None and tensors:
            inputs = inputs[: len(tensors[0].values)]
        return reading.read(self._task, tensors, None, inputs)

    def _elements(self, a: str, b: str) -> Elements:
        return elements(self._load(a), self._load(b))

    def rater(self, answer: Answer) -> Rater:
        """What it decided. Raises InfraError E-ARTEFACT-*, TaskError."""
        attempt = answer.attempt
        hashes = sample_hashes(self._store, attempt)
        decided = self._load(answer.content).decisions
        if len(hashes) != len(decided):
            why = f"{len(hashes)} for {len(decided)} samples"
            raise malformed(f"sample_hashes of attempt {attempt.id}", why)
        self._content[attempt.id] = answer.content
        return Rater(attempt.id, answer.factors, decided, hashes, attempt.claimed)

    def compare(self, a: Rater, b: Rater) -> Elements:
        """Two that ``rater`` gave. Raises as ``rater``."""
        return self._compare(self._content[a.attempt], self._content[b.attempt])

    def check_labels(self, rater: Rater, labels: Array) -> None:
        """Raises TaskError unless ``labels`` can be compared with what ``rater`` answered."""
        answered = self._load(self._content[rater.attempt])
        tasks.check_labels(self._task, labels[: rater.n], answered.outputs)
