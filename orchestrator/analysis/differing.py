"""Two rows of a run in the store: what both ran, and the samples on which they differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from orchestrator.conditions import CLEAN, parse
from orchestrator.diagnosis.sample_choice import choose, distances
from orchestrator.errors import DamageError, InputError, NotAvailableError
from orchestrator.models.graph import Array
from orchestrator.queue.states import AttemptState
from orchestrator.runs.observations import outputs
from orchestrator.runs.run import Run
from orchestrator.store.records import CellInfo


@dataclass(frozen=True)
class Place:
    """One row's answer to one file: the unit and its cell."""

    device: str
    cell: CellInfo


@dataclass(frozen=True)
class Candidate:
    """One model file on one input set, answered by both rows."""

    model: str
    file: str
    inputs: str
    a: Place
    b: Place

    @property
    def key(self) -> str:
        return f"{self.model}.{self.file}"


@dataclass(frozen=True, eq=False)
class Question:
    """``a``, ``b``: the rows as "device/runtime". ``differing`` of ``count`` samples differ.

    ``samples``: those to look into; ``outputs``: what each row recorded of them, [samples, ...].
    """

    run: str
    a: str
    b: str
    candidate: Candidate
    differing: int
    count: int
    samples: tuple[int, ...]
    outputs: tuple[tuple[Array, ...], tuple[Array, ...]] = field(repr=False)


def find(run: Run, a: str, b: str, model: str | None, most: int) -> Question:
    """The file that is asked for; of several, the only one on which the rows differ.

    Raises InputError E-LAYERS-ROW, E-LAYERS-MODEL; NotAvailableError E-LAYERS-ANSWER.
    """
    damage: dict[str, DamageError] = {}
    answered = _answered(run, damage)
    for row in (a, b):
        if row not in answered:
            known = ", ".join(sorted(answered))
            raise InputError("E-LAYERS-ROW", f"no row {row!r} in {run.id}", fix=f"rows: {known}")
    candidates = [
        Candidate(*key, answered[a][key], answered[b][key])
        for key in answered[a]
        if key in answered[b] and fnmatchcase(f"{key[0]}.{key[1]}", model or "*")
    ]
    if not candidates:
        what = f"no file that matches {model or '*'!r} was answered by both {a} and {b}"
        why = f"; {next(iter(damage.values()))}" if damage else ""
        raise NotAvailableError("E-LAYERS-ANSWER", what + why, fix="see: assay logs")
    questions = []
    for candidate in candidates:
        try:
            questions.append(_question(run, a, b, candidate, most))
        except DamageError as error:
            damage[candidate.key] = error
    if not questions:
        raise next(iter(damage.values()))
    differ = [q for q in questions if q.differing] or questions
    if len({q.candidate.key for q in differ}) > 1:
        names = ", ".join(dict.fromkeys(q.candidate.key for q in differ))
        raise InputError(
            "E-LAYERS-MODEL", f"{a} and {b} have several files: {names}", fix="choose: --model"
        )
    return differ[0]


def _answered(
    run: Run, damage: dict[str, DamageError]
) -> dict[str, dict[tuple[str, str, str], Place]]:
    """Row -> (model, file, inputs) -> its answer, if any; of several conditions, the clean one.

    A cell that is not what was written has none, and ``damage`` is told.
    """
    found: dict[str, dict[tuple[str, str, str], Place]] = {}
    for cell in sorted(run.cells, key=lambda c: c.condition != CLEAN):
        try:
            attempt = run.counted(cell)
        except DamageError as error:
            damage[cell.id], attempt = error, None
        device = (attempt.device if attempt else None) or cell.unit or cell.slot
        row = found.setdefault(f"{device}/{cell.runtime}", {})
        others = (
            parse(cell.condition).draw is not None
        )  # of other samples than a clean cell's first
        if attempt is not None and attempt.state is AttemptState.OK and not others:
            row.setdefault((cell.model, cell.file, cell.inputs), Place(device, cell))
    return found


def _question(run: Run, a: str, b: str, candidate: Candidate, most: int) -> Question:
    """Raises DamageError."""
    sides = [_outputs(run, place) for place in (candidate.a, candidate.b)]
    # Cells of other conditions than "clean" may be over the first samples only.
    n = min(len(side[0]) for side in sides)
    sides = [tuple(x[:n] for x in side) for side in sides]
    distance = distances(*sides)
    samples = choose(distance, most)
    return Question(
        run=run.id,
        a=a,
        b=b,
        candidate=candidate,
        differing=int((distance > 0).sum()),
        count=n,
        samples=tuple(samples),
        outputs=(tuple(y[samples] for y in sides[0]), tuple(y[samples] for y in sides[1])),
    )


def _outputs(run: Run, place: Place) -> tuple[Array, ...]:
    attempt = run.attempts[place.cell.attempt or ""]
    return tuple(o.values for o in outputs(run, place.cell, attempt))
