"""Store → every finished cell of several runs, with what its answer depended on.

Reads no output: that is for whoever wants one, by its hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from device_worker import wire
from orchestrator.errors import AssayError, DamageError, InputError
from orchestrator.matrix.runtime import runtime_spec
from orchestrator.queue.states import AttemptState, CellState
from orchestrator.runs.observations import content_of, row_of
from orchestrator.runs.snapshot import FrozenRun, load_run
from orchestrator.store.database import Store
from orchestrator.store.digests import taken_apart
from orchestrator.store.records import AttemptInfo, CellInfo, DeviceInfo, Json, RunInfo
from orchestrator.store.rows import counted
from orchestrator.variance.factors import Factors, factors
from orchestrator.variance.observation import Row

EVERY_RUN = 1 << 31
"""More runs than a store holds, for Reader.runs."""


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
    """A finished cell; ``answer``: of the attempt that counts, None unless it is ok, its codes are

    valid, and it is what was written. ``time``: Unix seconds of that attempt's claim, by the
    coordinator's clock.
    """

    run: RunInfo
    frozen: FrozenRun
    cell: CellInfo
    row: Row
    time: float
    answer: Answer | None

    @property
    def outcome(self) -> str:
        return self.cell.outcome.value if self.cell.outcome else "pending"


def every_run(store: Store) -> list[RunInfo]:
    """All runs, newest first."""
    return store.runs(EVERY_RUN)


def standings(
    store: Store, runs: Sequence[RunInfo], unreadable: dict[str, AssayError] | None = None
) -> Iterator[Standing]:
    """Finished cells, run by run in the order given.

    A run whose record is damaged is told to ``unreadable`` by its ID and passed over, a damaged
    cell or attempt as "CELL of RUN"; without that InputError E-FROZEN, DamageError is raised.
    """
    environment = cache(store.environment_data)
    devices = {d.name: d for d in store.devices()}
    for run in runs:
        try:
            frozen = load_run(store.frozen(run.id))
        except InputError as error:
            if unreadable is None:
                raise
            unreadable[run.id] = error
            continue
        attempts = {a.id: a for a in store.attempts(run.id)}
        for cell in store.cells(run.id):
            if cell.state is not CellState.DONE:
                continue
            try:
                found = _standing(run, frozen, cell, attempts, devices, environment)
            except DamageError as error:
                if unreadable is None:
                    raise
                unreadable[f"{cell.id} of {run.id}"] = error
            else:
                yield found


def _standing(
    run: RunInfo,
    frozen: FrozenRun,
    cell: CellInfo,
    attempts: Mapping[str, AttemptInfo],
    devices: Mapping[str, DeviceInfo],
    environment: Callable[[str], Json],
) -> Standing:
    """Raises DamageError."""
    attempt = counted(cell, attempts)
    told = environment(attempt.environment) if attempt and attempt.environment else {}
    row = row_of(frozen, cell, attempt, told, devices)
    if (unit := devices.get(row.device)) and unit.damage:
        raise unit.damage
    answer = _answer(frozen, cell, row, attempt, told) if attempt else None
    time = attempt.claimed if attempt else run.created
    return Standing(run, frozen, cell, row, time, answer)


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
