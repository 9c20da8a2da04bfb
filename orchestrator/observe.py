"""Store → what the statistics take: each cell's standing with its outputs, and what is known

beforehand of its model and inputs. Nothing is run and nothing is written.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.baseline import Baseline, stored
from orchestrator.devices.worker import emulated
from orchestrator.errors import InfraError
from orchestrator.frozen import FrozenRun, load_run
from orchestrator.matrix.key import key_of
from orchestrator.queue.states import AttemptState, CellState
from orchestrator.staged import StagedOutput
from orchestrator.store.database import Store
from orchestrator.store.records import AttemptInfo, CellInfo, DeviceInfo, Json
from orchestrator.store.series import DAMAGED
from orchestrator.variance import tasks
from orchestrator.variance.observation import Observation, Order, Output, Row, Soak, Truth
from orchestrator.variance.slices import same_inputs

Damage = Callable[[str, InfraError], None]


def observations(
    store: Store, run_id: str, damage: Damage | None = None
) -> Iterator[tuple[Observation, Truth]]:
    """Every finished cell of a run, in plan order, one at a time, whatever its outcome.

    The truth's FP32 baseline is the newest one stored, None where there is none. ``damage`` is told
    of a cell (or "MODEL on INPUTS", whose labels and baseline are then unknown) with an unreadable
    artefact, and the rest follows; without it the InfraError E-ARTEFACT-* is raised. Raises
    InputError E-RUN-UNKNOWN, E-FROZEN.
    """
    run_id = store.run(run_id).id
    frozen = load_run(store.frozen(run_id))
    attempts = {a.id: a for a in store.attempts(run_id)}
    devices = {d.name: d for d in store.devices()}
    parents = stored(store, frozen)
    known: dict[tuple[str, str], Truth] = {}
    for cell in store.cells(run_id):
        if cell.state is not CellState.DONE:
            continue
        key = cell.model, cell.inputs
        if key not in known:
            known[key] = known_truth(store, frozen, *key, parents.get(key), damage)
        try:
            found = observation(store, frozen, cell, attempts, devices)
        except InfraError as error:
            if damage is None or error.id not in DAMAGED:
                raise
            damage(cell.id, error)
            continue
        yield found, known[key]


def observation(
    store: Store,
    frozen: FrozenRun,
    cell: CellInfo,
    attempts: Mapping[str, AttemptInfo],
    devices: Mapping[str, DeviceInfo],
) -> Observation:
    """A cell as it stands; ``attempts`` of its run and ``devices`` by their IDs.

    Raises InfraError E-ARTEFACT-MISSING, E-ARTEFACT-CORRUPT, E-ARTEFACT-FORMAT.
    """
    attempt = attempts.get(cell.attempt or "")
    environment = (
        store.environment_data(attempt.environment) if attempt and attempt.environment else {}
    )
    row = row_of(frozen, cell, attempt, environment, devices)
    status = cell.outcome.value if cell.outcome else CellState.PENDING.value
    if attempt is None or attempt.state is not AttemptState.OK or attempt.result is None:
        error = attempt.error if attempt else None
        return Observation(row, cell.id, status, cell.attempt, error=error)
    return told(
        row,
        attempt.result,
        outputs(store, frozen, cell, attempt),
        environment,
        cell=cell.id,
        attempt=attempt.id,
        codes_valid=bool(attempt.codes_valid),
        timing_valid=bool(attempt.timing_valid),
        samples=samples_of(store, frozen, cell),
    )


def told(
    row: Row,
    result: Json,
    outputs: tuple[Output, ...],
    environment: Mapping[str, Any],
    *,
    cell: str,
    attempt: str,
    codes_valid: bool = True,
    timing_valid: bool = True,
    samples: NDArray[np.int64] | None = None,
) -> Observation:
    """A cell that is ok, by what its worker said: ``result`` is a `wire.JobResult` as JSON data."""
    backend, repeats = result["backend"], result["repeats"]
    return Observation(
        row,
        cell,
        "ok",
        attempt,
        outputs=outputs,
        codes_valid=codes_valid,
        timing_valid=timing_valid,
        planned_backend=backend["planned"],
        fallbacks=tuple(backend["fallbacks"]),
        isa=frozenset(environment.get("isa_flags") or ()),
        repeats=repeats["count"],
        repeat_samples=repeats["samples"],
        repeat_mismatches=repeats["mismatches"],
        file_sha256=result["model_sha256"],
        outputs_sha256=tuple(o["blob"]["sha256"] for o in result["outputs"]),
        soak=_soak(result.get("soak")),
        power=result.get("power"),
        order=_order(result.get("order")),
        key=key_of(environment),
        samples=samples,
    )


def observation_or_error(
    store: Store,
    frozen: FrozenRun,
    cell: CellInfo,
    attempts: Mapping[str, AttemptInfo],
    devices: Mapping[str, DeviceInfo],
    damage: Damage,
) -> Observation:
    """As ``observation``; where what came out is damaged, ``damage`` is told, and it is an error

    of the infrastructure.
    """
    try:
        return observation(store, frozen, cell, attempts, devices)
    except InfraError as error:
        if error.id not in DAMAGED:
            raise
        damage(cell.id, error)
        row = row_of(frozen, cell, attempts.get(cell.attempt or ""), {}, devices)
        return Observation(row, cell.id, "infra_error", cell.attempt, error=str(error))


def row_of(
    frozen: FrozenRun,
    cell: CellInfo,
    attempt: AttemptInfo | None,
    environment: Mapping[str, Any],
    devices: Mapping[str, DeviceInfo],
) -> Row:
    """Who answered, or would have; ``environment``: as the attempt recorded it, {} if not."""
    unit = (attempt.device if attempt else None) or cell.unit or cell.slot
    return Row(
        model=cell.model,
        file=cell.file,
        device=unit,
        device_class=frozen.class_of(cell.slot, unit),
        emulated=_emulated(environment, devices.get(unit)),
        runtime=cell.runtime,
        inputs=cell.inputs,
        condition=cell.condition,
    )


def outputs(
    store: Store, frozen: FrozenRun, cell: CellInfo, attempt: AttemptInfo
) -> tuple[Output, ...]:
    """What an attempt that is ok put out. Raises as ``observation``."""
    staged = frozen.staging.models[f"{cell.model}.{cell.file}"]
    return tuple(_output(store, attempt, i, lattice) for i, lattice in enumerate(staged.outputs))


def samples_of(store: Store, frozen: FrozenRun, cell: CellInfo) -> NDArray[np.int64] | None:
    """As ``Observation.samples``. Raises as ``observation``."""
    sha256 = frozen.staging.spots.get(f"{cell.inputs}/{cell.condition}")
    return None if sha256 is None else array(store, sha256)


def _order(told: Json | None) -> Order | None:
    return Order(told["seed"], told["sample"], told["same"]) if told else None


def _soak(told: Json | None) -> Soak | None:
    """Attempts of an older worker know of none."""
    return Soak(**{f.name: told[f.name] for f in fields(Soak)}) if told else None


def _output(store: Store, attempt: AttemptInfo, i: int, lattice: StagedOutput) -> Output:
    return Output(
        lattice.name,
        array(store, attempt.artefacts[f"output-{i}"].sha256),
        lattice.scale,
        lattice.zero_point,
        lattice.code_min,
        lattice.code_max,
    )


def truth(
    store: Store, frozen: FrozenRun, model: str, inputs: str, parent: Baseline | None
) -> Truth:
    """What is known of a model on an input set. Raises as ``observation``."""
    staged, spec = frozen.staging.sets[inputs], frozen.matrix.model(model).task
    task = task_of(spec.model_dump())
    fp32 = None
    if parent is not None and parent.error is None:
        names = [o.name for o in frozen.staging.models[model].outputs]
        fp32 = tuple(
            Output(name, array(store, sha), None, None, None, None)
            for name, sha in zip(names, parent.outputs, strict=True)
        )
    return Truth(
        task=task,
        labels=array(store, staged.labels) if staged.labels else None,
        fp32=fp32,
        fp32_attempt=parent.attempt if parent else None,
        inputs=array(store, staged.x) if isinstance(task, tasks.Anomaly) else None,
        fp32_error=parent.error if parent else None,
        slices={name: array(store, sha) for name, sha in staged.slices.items()},
        same=same_inputs(array(store, staged.x)) if staged.slices else None,
    )


def known_truth(
    store: Store,
    frozen: FrozenRun,
    model: str,
    inputs: str,
    parent: Baseline | None,
    damage: Damage | None,
) -> Truth:
    """As ``truth``; of what is damaged ``damage`` is told, and it is then not known."""
    try:
        return truth(store, frozen, model, inputs, parent)
    except InfraError as error:
        if damage is None or error.id not in DAMAGED:
            raise
        damage(f"{model} on {inputs}", error)
        task = task_of(frozen.matrix.model(model).task.model_dump())
        return Truth(task, labels=None, fp32=None, fp32_attempt=None, fp32_error=str(error))


def task_of(named: dict[str, Any]) -> tasks.Task:
    """From a matrix' task as plain data."""
    kinds = {
        "classification": tasks.Classification,
        "regression": tasks.Regression,
        "anomaly": tasks.Anomaly,
    }
    kind = kinds[named.pop("type")]
    named.pop("labels", None)
    made: tasks.Task = kind(**named)
    return made


def _emulated(environment: Mapping[str, Any], device: DeviceInfo | None) -> bool:
    return emulated(environment) or (device is not None and device.emulated)


def array(store: Store, sha256: str) -> NDArray[Any]:
    """The .npy kept under ``sha256``. Raises as ``observation``."""
    data = store.artefacts.read(sha256)
    try:
        loaded: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InfraError(
            "E-ARTEFACT-FORMAT",
            f"artefact {sha256} is no .npy file: {error}",
            mend="run the cell again",
            retryable=False,
        ) from error
    return loaded
