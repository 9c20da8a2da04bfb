"""Devices that run pieces of models: batches out, answers in."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from device_worker import batch as forms
from device_worker import wire
from orchestrator.coordinator.reservations import Reservations
from orchestrator.coordinator.visit import Visit, visit
from orchestrator.devices import batch
from orchestrator.devices.session import Limits
from orchestrator.diagnosis.pair import Trial, Tried
from orchestrator.errors import InfraError
from orchestrator.matrix.runtime import runtime_spec
from orchestrator.models.graph import Array
from orchestrator.runs.snapshot import FrozenRun

BUDGET = 64 << 20
"""Bytes of models and their inputs that go to a device in one archive."""


@dataclass(frozen=True, eq=False)
class DeviceSide:
    """``lock``: a device is talked to by one thread at a time, also under two runtimes."""

    name: str
    there: Visit
    lock: threading.Lock
    runtime: wire.RuntimeSpec

    def run(self, trials: Sequence[Trial], *, optimise: bool = True) -> list[Tried]:
        spec = replace(self.runtime, optimise=optimise)
        found: list[Tried] = []
        with self.lock:
            worker = self.there.worker(spec.runtime)
            for part in _parts(trials):
                answers = batch.run(self.there.session, worker, archive(part), spec)
                found += [tried(answer, self.name) for answer in answers.trials]
        return found


def tried(answer: batch.Answered, where: str) -> Tried:
    """What a device answered, as the search takes it. Raises InfraError where the device failed."""
    error, ran = answer.tried.error, answer.tried.backend
    if error is None:
        return Tried(answer.outputs, answer.graph, ran.plan_sha256 if ran else None)
    if error["kind"] == "infra_error":
        raise InfraError(error["code"], error["what"], where=where)
    return Tried(error=f"{error['what']} [{error['code']}]")


@contextmanager
def visited(
    root: Path, frozen: FrozenRun, rows: Sequence[tuple[str, str]]
) -> Iterator[list[DeviceSide]]:
    """The devices of some (device, runtime) of a run, leased; each with a worker for its runtime.

    Raises what visiting a device raises.
    """
    timeouts = frozen.matrix.timeouts
    limits = Limits(timeouts.cell, timeouts.silence)
    there: dict[str, tuple[Visit, threading.Lock]] = {}
    with Reservations(root) as reservations, ExitStack() as stack:
        sides = []
        for name, runtime in rows:
            device, config = frozen.inventory.device(name), frozen.matrix.runtime(runtime)
            if name not in there:
                leased = stack.enter_context(visit(device, reservations, limits))
                there[name] = leased, threading.Lock()
            spec = runtime_spec(config, device)
            sides.append(DeviceSide(f"{name}/{runtime}", *there[name], spec))
        yield sides


def archive(trials: Sequence[Trial]) -> batch.Archive:
    """Inputs that several trials share are in it once."""
    arrays: dict[str, Array] = {}
    packed, models = [], {}
    for i, trial in enumerate(trials):
        models[f"{i}.model"] = trial.model
        names = [_named(array) for array in trial.inputs]
        arrays.update(zip(names, trial.inputs, strict=True))
        packed.append(forms.Trial(str(i), f"{i}.model", names, trial.graph))
    return batch.pack(packed, models, arrays)


def _named(array: Array) -> str:
    digest = hashlib.sha256(repr((array.dtype.str, array.shape)).encode())
    digest.update(array.tobytes())
    return f"{digest.hexdigest()}.npy"


def _parts(trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """In order, each of at most ``BUDGET`` bytes, or of one trial."""
    part: list[Trial] = []
    room = BUDGET
    for trial in trials:
        size = len(trial.model) + sum(array.nbytes for array in trial.inputs)
        if part and size > room:
            yield part
            part, room = [], BUDGET
        part.append(trial)
        room -= size
    if part:
        yield part
