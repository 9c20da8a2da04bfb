"""Store → every finished cell of several runs, with what its answer depended on.

Reads no output: that is for whoever wants one, by its hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from device_worker import wire
from orchestrator.errors import AssayError, DamageError, InputError
from orchestrator.matrix.runtime import runtime_spec
from orchestrator.queue.states import AttemptState, CellState
from orchestrator.runs.observations import content_of, row_of
from orchestrator.runs.run import Run
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.store.digests import taken_apart
from orchestrator.store.records import AttemptInfo, CellInfo, Json
from orchestrator.variance.factors import Factors, factors
from orchestrator.variance.observation import Row


@dataclass(frozen=True, eq=False)
class Answer:
    """An attempt that is ok. ``content``: the content ID of what it put out."""

    attempt: AttemptInfo
    factors: Factors
    environment: Json
    file_sha256: str
    inputs_sha256: tuple[str, ...]
    content: str


@dataclass(frozen=True, eq=False)
class Standing:
    """A finished cell, and its answer where it has a valid one.

    ``answer``: of the attempt that counts, None unless it is ok, its codes are valid, and it is
    what was written. ``time``: Unix seconds of that attempt's claim, by the coordinator's clock.
    """

    run: Run
    cell: CellInfo
    row: Row
    time: float
    answer: Answer | None

    @property
    def outcome(self) -> str:
        return self.cell.outcome.value if self.cell.outcome else "pending"


def standings(
    runs: Iterable[Run], unreadable: dict[str, AssayError] | None = None
) -> Iterator[Standing]:
    """Finished cells, run by run in the order given.

    A run whose record is damaged is told to ``unreadable`` by its ID and passed over, a damaged
    cell or attempt as "CELL of RUN"; without that InputError E-FROZEN, DamageError is raised.
    """
    for run in runs:
        try:
            run.frozen  # noqa: B018  read here, where it may be passed over
        except InputError as error:
            if unreadable is None:
                raise
            unreadable[run.id] = error
            continue
        for cell in run.cells:
            if cell.state is not CellState.DONE:
                continue
            try:
                found = _standing(run, cell)
            except DamageError as error:
                if unreadable is None:
                    raise
                unreadable[f"{cell.id} of {run.id}"] = error
            else:
                yield found


def _standing(run: Run, cell: CellInfo) -> Standing:
    """Raises DamageError."""
    attempt = run.counted(cell)
    environment = run.environment(attempt)
    row = row_of(run, cell, attempt, environment)
    if (unit := run.devices.get(row.device)) and unit.damage:
        raise unit.damage
    answer = _answer(run.frozen, cell, row, attempt, environment) if attempt else None
    time = attempt.claimed if attempt else run.info.created
    return Standing(run, cell, row, time, answer)


def _answer(
    frozen: FrozenRun, cell: CellInfo, row: Row, attempt: AttemptInfo, environment: Json
) -> Answer | None:
    result = attempt.result
    if attempt.state is not AttemptState.OK or result is None or not attempt.codes_valid:
        return None
    config, unit = frozen.matrix.runtime(cell.runtime), frozen.inventory.device(row.device)
    spec = runtime_spec(config, unit)
    with taken_apart(attempt):
        wire.load(wire.Repeats, result["repeats"])
        return Answer(
            attempt=attempt,
            factors=factors(row, spec, environment, tuple(result["backend"]["fallbacks"])),
            environment=environment,
            file_sha256=result["model_sha256"],
            inputs_sha256=tuple(result["input_sha256"]),
            content=content_of(attempt),
        )
