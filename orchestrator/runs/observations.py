"""What the statistics take from a recorded run.

Each cell's standing with its outputs, and what is known beforehand of its model and inputs. Nothing
is run and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.conditions import parse
from orchestrator.errors import DamageError
from orchestrator.matrix.environment import emulated
from orchestrator.matrix.key import key_of
from orchestrator.queue.states import AttemptState, CellState
from orchestrator.runs.baselines import Baseline
from orchestrator.runs.run import Run
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.store.arrays import array_of, malformed
from orchestrator.store.database import Store
from orchestrator.store.digests import damaged, taken_apart
from orchestrator.store.records import AttemptInfo, Blob, CellInfo, DeviceInfo, Json, content_id
from orchestrator.variance import tasks
from orchestrator.variance.observation import Observation, Order, Output, Row, Soak, Truth
from orchestrator.variance.slices import same_inputs
from orchestrator.variance.tasks import task_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")


def observations(run: Run) -> Iterator[tuple[Observation, Truth]]:
    """Every finished cell of a run, in plan order, one at a time, whatever its outcome.

    The truth's FP32 baseline is the newest one stored, None where there is none. ``run`` is told of
    a cell with an unreadable artefact or record, and of labels or a baseline, which are then
    unknown; the rest follows. Raises InputError E-FROZEN.
    """
    known: dict[tuple[str, str], Truth] = {}
    for cell in run.cells:
        if cell.state is not CellState.DONE:
            continue
        try:
            found = observation(run, cell)
        except DamageError as error:
            run.damage(cell.id, error)
            continue
        key = cell.model, cell.inputs
        if key not in known:
            known[key] = truth_of(run, *key, run.parents.get(key))
        yield found, known[key]


def observation(run: Run, cell: CellInfo) -> Observation:
    """A cell as it stands.

    Raises DamageError E-ARTEFACT-MISSING, E-ARTEFACT-CORRUPT, E-ARTEFACT-FORMAT, E-STORE-DAMAGED,
    E-STORE-ROW.
    """
    attempt = run.counted(cell)
    environment = run.environment(attempt)
    row = row_of(run, cell, attempt, environment)
    if (unit := run.devices.get(row.device)) and unit.damage:
        raise unit.damage
    status = cell.outcome.value if cell.outcome else CellState.PENDING.value
    if attempt is None or attempt.state is not AttemptState.OK or attempt.result is None:
        error = attempt.error if attempt else None
        return Observation(row, cell.id, status, cell.attempt, error=error)
    if not attempt.witnessed:
        sample_hashes(run.store, attempt)  # all that it rests on, since its record proves nothing
    with taken_apart(attempt):
        return told(
            row,
            attempt.result,
            outputs(run, cell, attempt),
            environment,
            cell=cell.id,
            attempt=attempt.id,
            codes_valid=bool(attempt.codes_valid),
            timing_valid=bool(attempt.timing_valid),
            samples=samples_of(run, cell),
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
        soak=_soak(result.get("soak")),
        power=result.get("power"),
        order=_order(result.get("order")),
        key=key_of(environment),
        samples=samples,
    )


def observation_or_error(run: Run, cell: CellInfo) -> Observation:
    """As ``observation``; damage becomes an error of the infrastructure.

    ``run`` is told of it.
    """
    try:
        return observation(run, cell)
    except DamageError as error:
        run.damage(cell.id, error)
        row = row_of(run, cell, run.attempts.get(cell.attempt or ""), {})
        return Observation(row, cell.id, "infra_error", cell.attempt, error=str(error))


def row_of(
    run: Run, cell: CellInfo, attempt: AttemptInfo | None, environment: Mapping[str, Any]
) -> Row:
    """Which row a cell is of; ``environment``: as the attempt recorded it, {} if not."""
    unit = (attempt.device if attempt else None) or cell.unit or cell.slot
    return Row(
        model=cell.model,
        file=cell.file,
        device=unit,
        device_class=run.frozen.class_of(cell.slot, unit),
        emulated=_emulated(environment, run.devices.get(unit)),
        runtime=cell.runtime,
        inputs=cell.inputs,
        condition=cell.condition,
    )


def outputs(run: Run, cell: CellInfo, attempt: AttemptInfo) -> tuple[Output, ...]:
    """What an attempt that is ok put out. Raises as ``observation``."""
    staged = run.frozen.staging.models[f"{cell.model}.{cell.file}"]
    with taken_apart(attempt):
        hashes = _outputs_sha256(attempt)
        if len(hashes) != len(staged.outputs):
            raise malformed(f"attempt {attempt.id}", f"{len(hashes)} outputs")
        found = tuple(
            Output(
                lattice.name,
                array(run.store, sha256),
                lattice.scale,
                lattice.zero_point,
                lattice.code_min,
                lattice.code_max,
            )
            for sha256, lattice in zip(hashes, staged.outputs, strict=True)
        )
    _check_samples(run.frozen, cell, attempt, found)
    return found


def content_of(attempt: AttemptInfo) -> str:
    """The content ID (`store.records.content_id`) of what an attempt that is ok put out.

    Raises DamageError E-STORE-DAMAGED.
    """
    found = content_id(_outputs_sha256(attempt))
    if found != attempt.content:
        raise damaged(f"attempt {attempt.id}", "its content ID is not that of its outputs")
    return found


def _outputs_sha256(attempt: AttemptInfo) -> tuple[str, ...]:
    """sha256 of each output's .npy: what is kept is what the result tells of."""
    with taken_apart(attempt):
        told = tuple(str(o["blob"]["sha256"]) for o in (attempt.result or {})["outputs"])
    kept = tuple(b.sha256 for r, b in _in_order(attempt.artefacts))
    if told != kept:
        raise damaged(f"attempt {attempt.id}", "its result tells of other outputs than it has")
    return kept


def sample_hashes(store: Store, attempt: AttemptInfo) -> NDArray[np.uint8]:
    """The sha256 of each sample's output bytes, uint8 [samples, 32].

    Equal where the answers to a sample are. Raises as ``observation``.
    """
    with taken_apart(attempt):
        found = array(store, attempt.artefacts["sample_hashes"].sha256)
    if str(found.dtype) != "uint8" or found.ndim != 2 or found.shape[1] != 32:
        why = f"{found.dtype}{list(found.shape)} is not uint8[samples, 32]"
        raise malformed(f"sample_hashes of attempt {attempt.id}", why)
    return found


def _in_order(artefacts: Mapping[str, Blob]) -> list[tuple[str, Blob]]:
    """The outputs, in tensor order."""
    named = [(role, blob) for role, blob in artefacts.items() if role.startswith("output-")]
    return sorted(named, key=lambda item: int(item[0].removeprefix("output-")))


def _check_samples(
    frozen: FrozenRun, cell: CellInfo, attempt: AttemptInfo, found: tuple[Output, ...]
) -> None:
    """Raises DamageError E-ARTEFACT-FORMAT unless each output has the samples that were asked."""
    condition = parse(cell.condition)
    fed = f"{cell.model}.{cell.file}/{condition.tensor(cell.inputs)}"
    asked = frozen.staging.tensors[fed].shape[0]
    if condition.few:
        asked = min(asked, frozen.matrix.repeat_samples)
    for i, output in enumerate(found):
        shape = output.values.shape
        if output.values.dtype.kind not in "biufc":
            raise malformed(f"output-{i} of attempt {attempt.id}", f"{output.values.dtype}")
        if shape[:1] != (asked,) or not output.values.size:
            why = f"shape {list(shape)} for {asked} samples"
            raise malformed(f"output-{i} of attempt {attempt.id}", why)


def samples_of(run: Run, cell: CellInfo) -> NDArray[np.int64] | None:
    """As ``Observation.samples``. Raises as ``observation``."""
    sha256 = run.frozen.staging.spots.get(parse(cell.condition).tensor(cell.inputs))
    return None if sha256 is None else array(run.store, sha256)


def _order(told: Json | None) -> Order | None:
    return Order(told["seed"], told["sample"], told["same"]) if told else None


def _soak(told: Json | None) -> Soak | None:
    """Attempts of an older worker know of none."""
    return Soak(**{f.name: told[f.name] for f in fields(Soak)}) if told else None


def truth_of(run: Run, model: str, inputs: str, parent: Baseline | None) -> Truth:
    """What is known of a model on an input set.

    Whatever is damaged counts as unknown, and ``run`` is told of it.
    """
    store, frozen = run.store, run.frozen
    lost: dict[str, DamageError] = {}

    def known(what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except DamageError as error:
            run.damage(f"{what} of {model} on {inputs}", error)
            lost[what] = error
            return None

    staged, spec = frozen.staging.sets[inputs], frozen.matrix.model(model).task
    task = task_of(spec.model_dump())
    outputs = [o.name for o in frozen.staging.models[model].outputs] if parent else []
    fp32 = known("the FP32 baseline", lambda: _fp32(store, parent, outputs))
    wanted = isinstance(task, tasks.Anomaly) or staged.slices
    x = known("the inputs", lambda: array(store, staged.x)) if wanted else None
    slices = {
        name: values
        for name, sha in staged.slices.items()
        if (values := known(f"slice {name}", partial(array, store, sha))) is not None
    }
    labels = staged.labels
    return Truth(
        task=task,
        labels=known("the labels", lambda: array(store, labels)) if labels else None,
        fp32=fp32,
        fp32_attempt=parent.attempt if parent and fp32 else None,
        inputs=x if isinstance(task, tasks.Anomaly) else None,
        fp32_error=next((str(e) for e in lost.values()), parent.error if parent else None),
        slices=slices if x is not None else {},
        same=same_inputs(x) if x is not None and staged.slices else None,
    )


def _fp32(store: Store, parent: Baseline | None, names: Sequence[str]) -> tuple[Output, ...] | None:
    """None where there is none, or it did not run. Raises DamageError."""
    if parent is None or parent.error is not None:
        return None
    if parent.damage is not None:
        raise parent.damage
    if len(names) != len(parent.outputs):
        raise damaged("an FP32 baseline", f"{len(parent.outputs)} outputs for {len(names)}")
    return tuple(
        Output(name, array(store, sha), None, None, None, None)
        for name, sha in zip(names, parent.outputs, strict=True)
    )


def _emulated(environment: Mapping[str, Any], device: DeviceInfo | None) -> bool:
    return emulated(environment) or (device is not None and device.emulated)


def array(store: Store, sha256: str) -> NDArray[Any]:
    """The .npy kept under ``sha256``. Raises as ``observation``."""
    return array_of(store.artefacts.read(sha256), f"artefact {sha256}")
