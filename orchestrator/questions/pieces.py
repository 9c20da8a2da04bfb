"""A device that runs pieces of models: batches out, answers in."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from device_worker import batch as forms
from device_worker import wire
from orchestrator.devices import batch
from orchestrator.errors import InfraError
from orchestrator.layers.graph import Array
from orchestrator.layers.sides import Trial, Tried
from orchestrator.visit import Visit

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
                answers = batch.run(self.there.session, worker, _archive(part), spec)
                found += [self._tried(answer) for answer in answers.trials]
        return found

    def _tried(self, answer: batch.Answered) -> Tried:
        error, ran = answer.tried.error, answer.tried.backend
        if error is None:
            return Tried(answer.outputs, answer.graph, ran.plan_sha256 if ran else None)
        if error["kind"] == "infra_error":
            raise InfraError(error["code"], error["what"], where=self.name)
        return Tried(error=f"{error['what']} [{error['code']}]")


def _archive(trials: Sequence[Trial]) -> batch.Archive:
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
