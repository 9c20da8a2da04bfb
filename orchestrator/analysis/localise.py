"""Two rows of a run → the operators at which they part: both devices are visited again for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.analysis.differing import Question, find
from orchestrator.analysis.tapped import CLOSED, Layered, layered, same
from orchestrator.coordinator.device_pair import BUDGET, visited
from orchestrator.diagnosis import search_onnx, search_tflite, taps
from orchestrator.diagnosis.pair import Pair, Trial
from orchestrator.diagnosis.result import NOT_LOCALISABLE, Found
from orchestrator.models.graph import Array, NotLocalisableError
from orchestrator.runs.run import Run
from orchestrator.runs.staged import Lineage


@dataclass(frozen=True)
class Looked:
    """A localisation, and whether the devices reproduced their recorded answers for it.

    ``reproduced``: for each device whether it gave what the run recorded of it; None where no visit
    was needed. ``taps``: a's layers against the FP32 parent, where asked for; else ``no_taps`` says
    why there are none.
    """

    found: Found
    reproduced: tuple[bool | None, bool | None]
    taps: taps.Taps | None = None
    no_taps: str | None = None


@dataclass(frozen=True)
class Localised:
    """What was looked for, and what was seen.

    ``lineage``: of the file and the FP32 parent that its layers are compared with, None where there
    is none.
    """

    question: Question
    found: Found
    reproduced: tuple[bool | None, bool | None]
    taps: taps.Taps | None = None
    no_taps: str | None = None
    lineage: Lineage | None = None

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
            "lineage": self.lineage and self.lineage.model_dump(),
            **self.found.to_json(),
        }


def localise(
    root: Path,
    run: Run,
    a: str,
    b: str,
    *,
    model: str | None,
    most: int,
    tapped: bool = False,
) -> Localised:
    """``run``: of the store in ``root``. ``a``, ``b``: rows of it as "device/runtime".

    ``model``: "model.file" or a glob of it, where the rows have several; ``most`` samples are
    looked into. ``tapped``: compare a's layers with the FP32 parent's as well.

    Raises InputError E-LAYERS-ROW, E-LAYERS-MODEL, E-MODEL-UNREADABLE;
    NotAvailableError E-LAYERS-ANSWER; what visiting a device raises.
    """
    question = find(run, a, b, model, most)
    candidate = question.candidate
    if run.frozen.staging.models[candidate.key].compiled is not None:
        return Localised(question, Found(NOT_LOCALISABLE, reason=CLOSED), (None, None))
    names = candidate.model, candidate.file, candidate.inputs
    asked = layered(run, names, question.samples)
    rows = [(place.device, place.cell.runtime) for place in (candidate.a, candidate.b)]
    with visited(root, run.frozen, rows) as sides:
        seen = look(asked, question.outputs, Pair(*sides), tapped=tapped)
    return Localised(question, seen.found, seen.reproduced, seen.taps, seen.no_taps, asked.lineage)


def look(
    asked: Layered, recorded: tuple[Sequence[Array], Sequence[Array]], pair: Pair, *, tapped: bool
) -> Looked:
    """Into a file on two devices that answer now; ``recorded``: what each has answered before.

    Raises InputError E-MODEL-UNREADABLE; what a device raises.
    """
    ran = pair.run([Trial("again", asked.file, asked.inputs)])
    a_same, b_same = (same(tried[0], kept) for tried, kept in zip(ran, recorded, strict=True))
    try:
        found = _search(asked, pair)
    except NotLocalisableError as error:
        found = Found(NOT_LOCALISABLE, reason=str(error))
    looked = Looked(found, (a_same, b_same))
    if not tapped:
        return looked
    try:
        return replace(looked, taps=asked.taps(pair.a))
    except NotLocalisableError as error:
        return replace(looked, no_taps=str(error))


def _search(asked: Layered, pair: Pair) -> Found:
    if asked.form == "onnx":
        return search_onnx.localise(asked.file, asked.inputs, pair)
    return search_tflite.localise(asked.file, asked.inputs, pair, max(1, BUDGET // len(asked.file)))
