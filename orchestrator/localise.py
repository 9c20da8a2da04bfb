"""Two rows of a run → the operators at which they part: both devices are visited again for it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from device_worker import batch as forms
from device_worker import wire
from orchestrator.checkup import Reservations
from orchestrator.devices import batch
from orchestrator.devices.session import Limits
from orchestrator.differing import Candidate, Question, find
from orchestrator.errors import InfraError
from orchestrator.frozen import FrozenRun, load_run
from orchestrator.layers import plans, prefixes
from orchestrator.layers.found import NOT_LOCALISABLE, Found
from orchestrator.layers.graph import Array, NotLocalisableError
from orchestrator.layers.sides import Pair, Trial, Tried
from orchestrator.orders import runtime_spec
from orchestrator.store.database import Store
from orchestrator.visit import Visit, visit

BUDGET = 64 << 20
"""Bytes of models, or of inputs, that go to a device in one archive."""
_CLOSED = "it was compiled for an accelerator, whose program is closed"


@dataclass(frozen=True)
class Localised:
    """``reproduced``: whether each device, visited again, gives what the run recorded of it; None

    where no visit was needed.
    """

    question: Question
    found: Found
    reproduced: tuple[bool | None, bool | None]

    def to_json(self) -> dict[str, Any]:
        """The document ``assay.layers/1``."""
        asked = self.question
        return {
            "schema": "assay.layers/1",
            "run": asked.run,
            "model": asked.candidate.model,
            "file": asked.candidate.file,
            "inputs": asked.candidate.inputs,
            "a": {"row": asked.a, "reproduced": self.reproduced[0]},
            "b": {"row": asked.b, "reproduced": self.reproduced[1]},
            "samples": list(asked.samples),
            "samples_differing": {"k": asked.differing, "n": asked.count},
            **self.found.to_json(),
        }


def localise(
    root: Path, run: str | None, a: str, b: str, *, model: str | None, most: int
) -> Localised:
    """``run``: an ID's beginning, None the newest. ``a``, ``b``: rows as "device/runtime".

    ``model``: "model.file" or a glob of it, where the rows have several; ``most`` samples are
    looked into.

    Raises InputError E-RUN-*, E-LAYERS-ROW, E-LAYERS-MODEL, E-MODEL-UNREADABLE;
    NotAvailableError E-LAYERS-ANSWER; what visiting a device raises.
    """
    with Store.open(root, readonly=True) as store:
        run_id = store.run(run).id
        frozen = load_run(store.frozen(run_id))
        question = find(store, frozen, run_id, a, b, model, most)
        candidate = question.candidate
        staged = frozen.staging.models[candidate.key]
        if staged.compiled is not None:
            return Localised(question, Found(NOT_LOCALISABLE, reason=_CLOSED), (None, None))
        data = store.artefacts.read(staged.sha256)
    with ExitStack() as stack:
        pair = _pair(stack, root, frozen, candidate)
        again = Trial("again", data, question.tensors)
        ran = pair.run([again])
        same = [
            _recorded(tried[0], kept) for tried, kept in zip(ran, question.outputs, strict=True)
        ]
        try:
            if staged.format == "onnx":
                found = plans.localise(data, question.tensors, pair)
            else:
                at_once = max(1, BUDGET // len(data))
                found = prefixes.localise(data, question.tensors, pair, at_once)
        except NotLocalisableError as error:
            found = Found(NOT_LOCALISABLE, reason=str(error))
    return Localised(question, found, (same[0], same[1]))


def _pair(stack: ExitStack, root: Path, frozen: FrozenRun, candidate: Candidate) -> Pair:
    """Both devices leased, each with a worker for its runtime."""
    timeouts = frozen.matrix.timeouts
    limits = Limits(timeouts.cell, timeouts.silence)
    reservations = stack.enter_context(Reservations(root))
    visits: dict[str, tuple[Visit, threading.Lock]] = {}
    sides = []
    for place in (candidate.a, candidate.b):
        device = frozen.inventory.device(place.device)
        if device.name not in visits:
            there = stack.enter_context(visit(device, reservations, limits))
            visits[device.name] = there, threading.Lock()
        config = frozen.matrix.runtime(place.cell.runtime)
        name = f"{device.name}/{config.name}"
        sides.append(_DeviceSide(name, *visits[device.name], runtime_spec(config, device)))
    return Pair(*sides)


@dataclass(frozen=True, eq=False)
class _DeviceSide:
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
    """In order, each with inputs of at most ``BUDGET`` bytes, or of one trial."""
    part: list[Trial] = []
    room = BUDGET
    for trial in trials:
        size = sum(array.nbytes for array in trial.inputs)
        if part and size > room:
            yield part
            part, room = [], BUDGET
        part.append(trial)
        room -= size
    if part:
        yield part


def _recorded(tried: Tried, kept: Sequence[Array]) -> bool:
    return tried.error is None and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in zip(tried.outputs, kept, strict=True)
    )
