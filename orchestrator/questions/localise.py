"""Two rows of a run → the operators at which they part: both devices are visited again for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.checkup import Reservations
from orchestrator.devices.session import Limits
from orchestrator.frozen import FrozenRun, load_run
from orchestrator.layers import plans, prefixes, taps
from orchestrator.layers.found import NOT_LOCALISABLE, Found
from orchestrator.layers.graph import Array, NotLocalisableError
from orchestrator.layers.sides import Pair, Side, Trial, Tried
from orchestrator.observe import array
from orchestrator.orders import runtime_spec
from orchestrator.questions.differing import Candidate, Question, find
from orchestrator.questions.pieces import BUDGET, DeviceSide
from orchestrator.store.database import Store
from orchestrator.visit import Visit, visit

_CLOSED = "it was compiled for an accelerator, whose program is closed"


@dataclass(frozen=True)
class Localised:
    """``reproduced``: whether each device, visited again, gives what the run recorded of it; None

    where no visit was needed. ``taps``: a's layers against the FP32 parent, where asked for; else
    ``no_taps`` says why there are none.
    """

    question: Question
    found: Found
    reproduced: tuple[bool | None, bool | None]
    taps: taps.Taps | None = None
    no_taps: str | None = None

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
            "taps": self.taps.to_json() if self.taps else None,
            "no_taps": self.no_taps,
            **self.found.to_json(),
        }


def localise(
    root: Path,
    run: str | None,
    a: str,
    b: str,
    *,
    model: str | None,
    most: int,
    tapped: bool = False,
) -> Localised:
    """``run``: an ID's beginning, None the newest. ``a``, ``b``: rows as "device/runtime".

    ``model``: "model.file" or a glob of it, where the rows have several; ``most`` samples are
    looked into. ``tapped``: compare a's layers with the FP32 parent's as well.

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
        golden = _golden(store, frozen, question) if tapped else None
    with ExitStack() as stack:
        pair = _pair(stack, root, frozen, candidate)
        again = Trial("again", data, question.tensors)
        ran = pair.run([again])
        same = [
            _recorded(tried[0], kept) for tried, kept in zip(ran, question.outputs, strict=True)
        ]
        try:
            found = _search(data, staged.format, question.tensors, pair)
        except NotLocalisableError as error:
            found = Found(NOT_LOCALISABLE, reason=str(error))
        localised = Localised(question, found, (same[0], same[1]))
        if golden is None:
            return localised
        try:
            told = _tap(data, staged.format, question.tensors, golden, pair.a)
        except NotLocalisableError as error:
            return replace(localised, no_taps=str(error))
        return replace(localised, taps=told)


def _search(data: bytes, form: str, tensors: Sequence[Array], pair: Pair) -> Found:
    if form == "onnx":
        return plans.localise(data, tensors, pair)
    return prefixes.localise(data, tensors, pair, max(1, BUDGET // len(data)))


@dataclass(frozen=True)
class _Golden:
    """The FP32 parent and its inputs on the samples; ``why`` where there is none to compare."""

    parent: bytes = b""
    tensors: tuple[Array, ...] = ()
    why: str | None = None


def _golden(store: Store, frozen: FrozenRun, question: Question) -> _Golden:
    model = question.candidate.model
    parent = frozen.staging.models.get(model)
    if parent is None:
        return _Golden(why="the matrix names no FP32 parent")
    if parent.format != "tflite":
        return _Golden(why="its FP32 parent is no TFLite file")
    tensor = frozen.staging.tensors[f"{model}/{question.candidate.inputs}"]
    x = array(store, tensor.sha256)[list(question.samples)][:, None]
    return _Golden(store.artefacts.read(parent.sha256), (x,))


def _tap(
    data: bytes, form: str, tensors: Sequence[Array], golden: _Golden, side: Side
) -> taps.Taps:
    if form != "tflite":
        raise NotLocalisableError("layers are compared with an FP32 parent in TFLite only")
    if golden.why is not None:
        raise NotLocalisableError(golden.why)
    return taps.tap(data, golden.parent, tensors, golden.tensors, side)


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
        sides.append(DeviceSide(name, *visits[device.name], runtime_spec(config, device)))
    return Pair(*sides)


def _recorded(tried: Tried, kept: Sequence[Array]) -> bool:
    return tried.error is None and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in zip(tried.outputs, kept, strict=True)
    )
