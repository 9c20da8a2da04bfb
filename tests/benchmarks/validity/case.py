"""One situation of which we know what is wrong, or that nothing is, as the audit is shown it.

What the audit is told of each side (factors, repeats, order, pair sums) is made by the product from
what the workers said, never written down beside the effect.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_worker import wire
from device_worker.wire import RuntimeSpec
from orchestrator.diagnosis.evidence import Evidence
from orchestrator.diagnosis.evidence import Side as Shown
from orchestrator.diagnosis.evidence_side import side
from orchestrator.diagnosis.pair import Side
from orchestrator.diagnosis.signature import signature
from orchestrator.models.inspect_child import read as read_file
from orchestrator.runs import observations
from orchestrator.variance.answers import Answers, read
from orchestrator.variance.factors import Factors, changed, factors
from orchestrator.variance.lattice import Array, Output
from orchestrator.variance.observation import Row
from orchestrator.variance.tasks import Classification
from tests.benchmarks.validity.unit import Told

Rows = NDArray[np.int64]
INT8 = "int8.tflite"


@dataclass(frozen=True, eq=False)
class Net:
    """``files``: INT8 ones, by what they are called ("u8s8.onnx"); ``parents``: FP32, by format.

    ``images`` [n, height, width, channels] as real numbers, ``labels`` [n].
    """

    name: str
    files: Mapping[str, bytes]
    parents: Mapping[str, bytes]
    images: Array
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class About:
    """What is known of a file's numbers.

    Its input and output lattices as (scale, zero point), None where it takes floats; the output's
    codes; products that can leave int16.
    """

    given: tuple[float, int] | None
    output: Output
    saturable: int


class Asked(Side, Protocol):
    """A unit: what the layer search runs pieces on, and what answered."""

    spec: RuntimeSpec

    def answer(self, model: bytes, x: Array) -> Told: ...


@dataclass(frozen=True)
class Place:
    """Where a row stands in the farm, as far as that is not what this machine is.

    ``environment``: in place of what the worker says of itself; ``spec``: what was asked for.
    """

    device: str = "host"
    device_class: str = "host"
    condition: str = "clean"
    environment: Mapping[str, Any] = field(default_factory=dict)
    spec: RuntimeSpec | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """One row: ``outputs`` as they arrived, and what the product makes of where they are from."""

    unit: Asked
    outputs: tuple[Array, ...]
    output: Output
    factors: Factors
    shown: Shown

    def of(self, rows: Rows) -> Seen:
        """Only these samples."""
        outputs = tuple(np.ascontiguousarray(x[rows]) for x in self.outputs)
        values = np.ascontiguousarray(self.output.values[rows])
        return replace(self, outputs=outputs, output=replace(self.output, values=values))


@dataclass(frozen=True, eq=False)
class Case:
    """A planted defect, or a null.

    ``mechanism``: what is planted (a `Mechanism`, or the name of a finding), None: nothing is
    wrong; ``where``: the factor, operator, class or verdict it is planted in. ``place``: index of
    the operator to blame, where it is known. ``severity``: of its kind, larger is worse; from
    ``stated`` on it has to be found. ``real``: the mechanism itself ran, else its effect was made
    up. ``pair``: one side is right. ``fed`` as the file takes it and ``golden`` as its ``parent``
    does, [n, 1, ...]. ``claimed``: the FP32 file that is said to be the parent; ``truth``: what the
    real one answers.
    """

    kind: str
    mechanism: str | None
    where: str
    severity: float
    stated: float
    real: bool
    pair: bool
    place: int | None
    a: Seen
    b: Seen
    evidence: Evidence
    answers: tuple[Answers, Answers]
    truth: Answers
    model: bytes
    form: str
    fed: Array
    golden: Array
    parent: bytes | None
    claimed: tuple[str, bytes]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """What all cases of one planter share, see `Case`."""

    name: str
    mechanism: str | None = None
    where: str = ""
    real: bool = False
    stated: float = 0.0


@dataclass(frozen=True)
class Undrawn:
    """A draw in which no case of the kind came about, and why."""

    kind: str
    why: str


def case(
    kind: Kind,
    net: Net,
    file: str,
    model: bytes,
    a: Seen,
    b: Seen,
    at: Rows,
    *,
    severity: float = 0.0,
    pair: bool = True,
    where: str | None = None,
    place: int | None = None,
    labels: NDArray[np.int64] | None = None,
    images: Array | None = None,
    claimed: tuple[str, bytes] | None = None,
) -> Case:
    """``at``: the samples; ``images``: of all samples, where they are not the net's own."""
    truth, labels = net.labels[at] if labels is None else labels, labels
    given = (net.images if images is None else images)[at]
    form = file.rpartition(".")[2]
    task = Classification()
    answers = read(task, [a.output], truth), read(task, [b.output], truth)
    evidence = Evidence(
        a.shown,
        b.shown,
        signature(*answers),
        changed(a.factors, b.factors),
        about(model, form).saturable,
    )
    return Case(
        kind.name,
        kind.mechanism,
        kind.where if where is None else where,
        severity,
        kind.stated,
        kind.real,
        pair,
        place,
        a,
        b,
        evidence,
        answers,
        read(task, [Output("real", real_answer(net, given), None, None, None, None)], truth),
        model,
        form,
        fed(given, model, form),
        np.ascontiguousarray(given[:, None]),
        net.parents.get("tflite") if form == "tflite" else None,
        claimed or ("onnx", net.parents["onnx"]),
        truth,
    )


def seen(
    unit: Asked,
    told: Told,
    model: bytes,
    form: str,
    place: Place | None = None,
    passes: Sequence[tuple[str, dict[str, Any], tuple[Array, ...]]] = (),
) -> Seen:
    """``passes``: further cells of the row: condition, result and outputs of the worker's job."""
    place = place or Place()
    spec = place.spec or unit.spec
    environment = {**told.environment, **place.environment}
    result = {
        "backend": wire.dump(told.backend),
        "input_sha256": list(told.inputs),
        "repeats": {"count": 1, "samples": len(told.outputs[0]), "mismatches": 0},
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "outputs": [
            {"blob": {"sha256": hashlib.sha256(x.tobytes()).hexdigest()}} for x in told.outputs
        ],
    }
    cells = []
    outputs = [_output(told.outputs, model, form)]
    for n, (condition, one, values) in enumerate(
        [(place.condition, result, told.outputs), *passes]
    ):
        row = Row("m", "f", place.device, place.device_class, False, "r", "inputs", condition)
        got = (_output(values, model, form),)
        cells.append(observations.told(row, one, got, environment, cell=str(n), attempt=str(n)))
    row = cells[0].row
    found = factors(row, spec, environment, tuple(told.backend.fallbacks))
    name = f"{place.device}/{spec.runtime}"
    shown = side(name, found, spec, result, environment, cells)
    return Seen(unit, told.outputs, outputs[0], found, shown)


def fed(images: Array, model: bytes, form: str) -> Array:
    """[n, 1, ...] as the file takes it."""
    x = images.transpose(0, 3, 1, 2) if form == "onnx" else images
    given = about(model, form).given
    if given is not None:
        codes = np.rint(x / np.float32(given[0])) + given[1]
        x = np.clip(codes, -128, 127).astype(np.int8)
    return np.ascontiguousarray(x[:, None])


@functools.lru_cache(maxsize=4096)
def about(model: bytes, form: str) -> About:
    with tempfile.NamedTemporaryFile(suffix=f".{form}") as file:
        file.write(model)
        file.flush()
        told = read_file(Path(file.name))
    one, out = told["inputs"][0], told["outputs"][0]
    codes = None if one["dtype"] == "float32" else (one["scale"], one["zero_point"])
    names = ("scale", "zero_point", "code_min", "code_max")
    output = Output(out["name"], np.empty(0), *(out[name] for name in names))
    return About(codes, output, told.get("saturable", 0))


def real_answer(net: Net, images: Array) -> Array:
    """What the true FP32 parent answers, [n, classes], in ONNX Runtime's own process here."""
    session = _session(net.parents["onnx"])
    name = session.get_inputs()[0].name
    x = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    found: Array = session.run(None, {name: x})[0]
    return found


@functools.lru_cache(maxsize=64)
def _session(model: bytes) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def _digest(x: Array) -> str:
    return hashlib.sha256(x.tobytes()).hexdigest()


def _output(outputs: Sequence[Array], model: bytes, form: str) -> Output:
    values = outputs[0].reshape(len(outputs[0]), -1)
    return replace(about(model, form).output, values=values)
