"""One row of a run against its FP32 parent, layer by layer.

`layers --taps` and `variance --by layer` are both made of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.diagnosis.pair import Side, Trial, Tried
from orchestrator.diagnosis.taps import Subject, Taps, tap
from orchestrator.diagnosis.taps_onnx import OnnxSubject
from orchestrator.diagnosis.taps_tflite import TfliteSubject
from orchestrator.models.graph import Array, NotLocalisableError
from orchestrator.runs.observations import array
from orchestrator.runs.run import Run
from orchestrator.runs.staged import Lineage, twin_key

CLOSED = "it was compiled for an accelerator, whose program is closed"


@dataclass(frozen=True, eq=False)
class Layered:
    """A model file and its parent with their inputs on some samples, [samples, 1, ...] each.

    ``why``: why there is nothing to compare the file with, if so. ``lineage``: whether its weights
    come from this parent's; None without one, and of a run made before that was told.
    """

    file: bytes = field(repr=False)
    form: str
    inputs: tuple[Array, ...] = field(repr=False)
    parent: bytes = field(repr=False)
    golden: tuple[Array, ...] = field(repr=False)
    why: str | None = None
    lineage: Lineage | None = None

    def taps(self, side: Side) -> Taps:
        """Raises NotLocalisableError; InputError E-MODEL-UNREADABLE; what a device raises."""
        if self.why is not None:
            raise NotLocalisableError(self.why)
        subject: Subject
        if self.form == "onnx":
            subject = OnnxSubject(self.file, self.parent, side)
        else:
            subject = TfliteSubject(self.file, self.parent, side)
        return tap(subject, self.inputs, self.golden)


def layered(run: Run, names: tuple[str, str, str], samples: Sequence[int]) -> Layered:
    """``names``: model, file, input set. The parent is the one of the file's own format.

    Raises InfraError E-ARTEFACT-*.
    """
    model, file, inputs = names
    store, frozen = run.store, run.frozen
    models, own = frozen.staging.models, model
    staged, parent = models[f"{model}.{file}"], models.get(model)
    lineage, why = staged.lineage, None
    if parent is not None and parent.format != staged.format and twin_key(model) in models:
        own, lineage = twin_key(model), staged.twin_lineage
        parent = models[own]
    if staged.compiled is not None:
        why = CLOSED
    elif parent is None:
        why = "the matrix names no FP32 parent"
    elif parent.format != staged.format:
        why = (
            f"its FP32 parent is a file of another format ({parent.format}, not {staged.format});"
            " the matrix may name its `fp32_twin`"
        )

    def given(key: str) -> tuple[Array, ...]:
        tensor = frozen.staging.tensors[f"{key}/{inputs}"]
        return (array(store, tensor.sha256)[list(samples)][:, None],)

    data, tensors = store.artefacts.read(staged.sha256), given(f"{model}.{file}")
    if why is not None or parent is None:
        return Layered(data, staged.format, tensors, b"", (), why)
    golden = store.artefacts.read(parent.sha256)
    return Layered(data, staged.format, tensors, golden, given(own), lineage=lineage)


def recorded(layered: Layered, side: Side, kept: Sequence[Array]) -> bool:
    """Whether the device, asked again, gives the outputs [samples, ...] that the run recorded."""
    (tried,) = side.run([Trial("again", layered.file, layered.inputs)])
    return same(tried, kept)


def same(tried: Tried, kept: Sequence[Array]) -> bool:
    return tried.error is None and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in zip(tried.outputs, kept, strict=True)
    )
