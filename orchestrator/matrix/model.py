"""The matrix file: what is measured, on what, how, and against which policy.

Strict, frozen models. Reading one from a file makes every path absolute (against that file's
folder); `orchestrator.matrix.loader` does that and checks what the models cannot see.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from orchestrator.conditions import ConditionError, parse
from orchestrator.matrix.device_class import Thermal
from orchestrator.matrix.fields import (
    File,
    Files,
    Globs,
    Name,
    Names,
    Seconds,
    Sha256,
    Spec,
    distinct,
    problem,
)

RuntimeName = Literal["onnxruntime", "litert", "tflite-runtime"]
Layout = Literal["same", "nchw", "flat"]
FORMATS: dict[str, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    "tflite": ("litert", "tflite-runtime"),
}
"""Model format (the file's suffix) to the runtimes that load it."""
CPU_PROVIDER = "CPUExecutionProvider"


class _Task(Spec):
    output: int = Field(default=0, ge=0)

    def settings(self) -> dict[str, Any]:
        """What decides right and wrong: the keyword arguments of variance's task of this type."""
        return self.model_dump(exclude={"type", "labels"})


class Classification(_Task):
    """Argmax of one output tensor; ``labels`` name the classes in output order."""

    type: Literal["classification"]
    labels: tuple[str, ...] | None = None


class Regression(_Task):
    """One output tensor; right means within ``tolerance`` of the truth (output units)."""

    type: Literal["regression"]
    tolerance: float = Field(gt=0)


class Anomaly(_Task):
    """A score per sample, anomalous above ``threshold``."""

    type: Literal["anomaly"]
    score: Literal["output", "max_output", "mse_to_input"]
    threshold: float


Task = Annotated[Classification | Regression | Anomaly, Field(discriminator="type")]


class Parent(Spec):
    """The FP32 model that the INT8 files were made from."""

    path: File
    layout: Layout = "same"
    sha256: Sha256 | None = None

    @field_validator("path")
    @classmethod
    def _known_format(cls, path: Path) -> Path:
        if path.suffix.lower().lstrip(".") not in FORMATS:
            raise problem(
                "E-MODEL-FORMAT",
                f"{path.name!r} has no known model format",
                fix="a file ending in .onnx or .tflite",
            )
        return path

    @property
    def format(self) -> str:
        """``onnx`` or ``tflite``."""
        return self.path.suffix.lower().lstrip(".")


class ModelFile(Parent):
    """One INT8 file. ``layout``: how the input set must be turned for it.

    ``same`` as stored; ``nchw`` channels-last input sets become channels-first; ``flat`` each
    sample becomes one row. ``compiled_from``: the file of the same model that this one was compiled
    from (for an Edge TPU): accelerators run a different file, and the report says so.
    """

    name: Name
    compiled_from: Name | None = None


def _parent(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


NamedParent = Annotated[
    Parent | None, BeforeValidator(_parent, json_schema_input_type=str | Parent | None)
]


class ModelSpec(Spec):
    """One network: its task, its FP32 parent (or none: nothing to compare with) and its files.

    ``fp32_twin``: the same parent in the other format. Answers are compared with those of ``fp32``;
    layers of files of the twin's format with the twin's.
    """

    name: Name
    task: Task
    fp32: NamedParent = None
    fp32_twin: NamedParent = None
    inputs: Names = Field(min_length=1)
    files: Annotated[tuple[ModelFile, ...], AfterValidator(distinct)] = Field(min_length=1)

    @property
    def parents(self) -> dict[str, Parent]:
        """Field that names it -> FP32 file."""
        named = ("fp32", self.fp32), ("fp32_twin", self.fp32_twin)
        return {field: parent for field, parent in named if parent}

    @model_validator(mode="after")
    def _twin_is_of_the_other_format(self) -> Self:
        if self.fp32_twin and (self.fp32 is None or self.fp32.format == self.fp32_twin.format):
            raise problem(
                "E-MATRIX-TYPE",
                "`fp32_twin` is the file that `fp32` names, in the other format",
                fix="one ends in .onnx, the other in .tflite; with a single one, name it `fp32`",
                at=("fp32_twin",),
            )
        return self

    @model_validator(mode="after")
    def _sources_exist(self) -> Self:
        known = [f.name for f in self.files]
        for i, file in enumerate(self.files):
            if file.compiled_from and file.compiled_from not in set(known) - {file.name}:
                raise problem(
                    "E-MATRIX-REFERENCE",
                    f"there is no other file {file.compiled_from!r} of this model",
                    fix=f"files: {', '.join(known)}",
                    at=("files", i, "compiled_from"),
                )
        return self


class _InputSet(Spec):
    name: Name
    limit: int | None = Field(default=None, ge=1)


class NpzInputs(_InputSet):
    """Arrays of one .npz: ``array`` [n, ...], ``labels`` [n, ...], ``slices`` each [n]."""

    type: Literal["npz"]
    path: File
    array: str = "x"
    labels: str | None = None
    slices: tuple[str, ...] = ()


class NpyInputs(_InputSet):
    """A .npy [n, ...] and, apart, its labels [n, ...]."""

    type: Literal["npy"]
    path: File
    labels: File | None = None


class CsvInputs(_InputSet):
    """A table with a header line: one sample per row, columns in the order given.

    ``columns``: default all but labels and slices. ``shape``: of one sample, default one row.
    """

    type: Literal["csv"]
    path: File
    columns: tuple[str, ...] | None = None
    label: str | None = None
    slices: tuple[str, ...] = ()
    shape: tuple[Annotated[int, Field(ge=1)], ...] | None = None


class ImageInputs(_InputSet):
    """A folder of pictures, as uint8 RGB [n, height, width, 3]; needs Pillow.

    ``labels``: a CSV that lists the files in ``file_column`` and the class numbers in
    ``label_column``, in the order to be used. ``class_folders``: instead, each class has its own
    folder, numbered in sorted order. ``size``: [height, width]; pictures of another size are
    resized (bilinear).
    """

    type: Literal["images"]
    path: File
    labels: File | None = None
    class_folders: bool = False
    file_column: str = "file"
    label_column: str = "label"
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]

    @model_validator(mode="after")
    def _one_source_of_labels(self) -> Self:
        if self.labels and self.class_folders:
            raise problem("E-MATRIX-TYPE", "give labels or class_folders, not both")
        return self


InputSpec = Annotated[NpzInputs | NpyInputs | CsvInputs | ImageInputs, Field(discriminator="type")]


class DeviceSelect(Spec):
    """Which devices, by a glob.

    ``class``: any unit of each class that fits; ``tag`` and ``name``: those units.
    """

    class_: str | None = Field(default=None, alias="class")
    tag: str | None = None
    name: str | None = None
    count: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_selector(self) -> Self:
        if sum(x is not None for x in (self.class_, self.tag, self.name)) != 1:
            raise problem("E-MATRIX-DEVICE", "give exactly one of class, tag, name")
        return self


class RuntimeConfig(Spec):
    """One way of running a model file; ``devices`` and ``files`` are globs.

    ``devices`` match a slot (``rpi4``, ``rpi4#2``, a unit's name); ``files`` match ``model.file``
    or ``file``. ``session``: ONNX Runtime session config entries; ``provider``: its execution
    providers, the wanted one first, each with ``provider_options``. ``delegate``: a TFLite delegate
    by the name that the device's inventory entry gives it. ``reset``: whether a TFLite model's
    variables forget each sample before the next.
    """

    name: Name
    runtime: RuntimeName
    threads: int = Field(default=1, ge=1, le=256)
    provider: Globs = Field(default=(CPU_PROVIDER,), min_length=1)
    provider_options: dict[str, dict[str, str]] = Field(default_factory=dict)
    session: dict[str, str] = Field(default_factory=dict)
    delegate: Name | None = None
    kernels: Literal["default", "reference", "builtin"] = "default"
    reset: Literal["on", "off"] = "on"
    devices: Globs = ("*",)
    files: Globs = ("*",)

    @model_validator(mode="after")
    def _options_fit_the_runtime(self) -> Self:
        onnx = self.runtime == "onnxruntime"
        misplaced = {
            "kernels": onnx and self.kernels != "default",
            "provider": not onnx and self.provider != (CPU_PROVIDER,),
            "provider_options": not onnx and self.provider_options,
            "delegate": onnx and self.delegate,
            "session": not onnx and self.session,
            "reset": onnx and self.reset != "on",
        }
        if wrong := next((name for name, given in misplaced.items() if given), None):
            raise problem(
                "E-MATRIX-RUNTIME", f"{wrong!r} has no meaning for {self.runtime}", at=(wrong,)
            )
        return self


def _condition(value: str) -> str:
    try:
        parse(value)
    except ConditionError as error:
        raise problem("E-MATRIX-CONDITION", str(error), fix=error.fix) from None
    return value


def _distinct_texts(values: tuple[str, ...]) -> tuple[str, ...]:
    return distinct(values, key="")


class Gate(Thermal):
    """As `Thermal`; what is left out comes from the device's class.

    ``heat_s``: how long a soak may take to reach its target.
    """

    heat_s: Seconds = Field(default=900.0, gt=0)


class Timeouts(Spec):
    """Seconds: waiting for a device; one cell; without any word from the worker."""

    queue: Seconds = Field(default=6 * 3600.0, gt=0)
    cell: Seconds = Field(default=20 * 60.0, gt=0)
    silence: Seconds = Field(default=3 * 60.0, gt=0)


class Retry(Spec):
    """Further attempts after an infrastructure error."""

    infra: int = Field(default=2, ge=0, le=100)


class Matrix(Spec):
    """The whole file. Without a policy results are measured and the verdict is inconclusive."""

    version: Literal[1]
    name: Name
    inventory: Files = Field(min_length=1)
    policy: File | None = None
    models: Annotated[tuple[ModelSpec, ...], AfterValidator(distinct)] = Field(min_length=1)
    inputs: Annotated[tuple[InputSpec, ...], AfterValidator(distinct)] = Field(min_length=1)
    devices: tuple[DeviceSelect, ...] = Field(min_length=1)
    runtimes: Annotated[tuple[RuntimeConfig, ...], AfterValidator(distinct)] = Field(min_length=1)
    conditions: Annotated[
        tuple[Annotated[str, AfterValidator(_condition)], ...], AfterValidator(_distinct_texts)
    ] = Field(default=("clean",), min_length=1)
    repeat_samples: int = Field(default=8, ge=1)
    telemetry_hz: float = Field(default=2.0, gt=0, le=100)
    gate: Gate = Gate()
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        known = [s.name for s in self.inputs]
        for i, model in enumerate(self.models):
            for name in model.inputs:
                if name not in known:
                    raise problem(
                        "E-MATRIX-REFERENCE",
                        f"there is no input set {name!r}",
                        fix=f"inputs: {', '.join(known)}",
                        at=("models", i, "inputs"),
                    )
        return self

    @model_validator(mode="after")
    def _soaks_stay_below_the_ceiling(self) -> Self:
        for i, text in enumerate(self.conditions):
            heat = parse(text).heat
            if heat and (why := heat.above(self.gate.ceiling_c)):
                raise problem(
                    "E-MATRIX-CONDITION",
                    f"{text!r}: {why}",
                    fix="raise gate.ceiling_c or soak at less",
                    at=("conditions", i),
                )
        return self

    def model(self, name: str) -> ModelSpec:
        return next(m for m in self.models if m.name == name)

    def file(self, model: str, file: str) -> ModelFile:
        return next(f for f in self.model(model).files if f.name == file)

    def input_set(self, name: str) -> InputSpec:
        return next(s for s in self.inputs if s.name == name)

    def runtime(self, name: str) -> RuntimeConfig:
        return next(r for r in self.runtimes if r.name == name)

    def paths(self) -> list[Path]:
        """Every model and input file (or folder) that the matrix names, each once, sorted."""
        found = {f.path for m in self.models for f in m.files}
        found |= {parent.path for m in self.models for parent in m.parents.values()}
        for s in self.inputs:
            found.add(s.path)
            if isinstance(s, NpyInputs | ImageInputs) and s.labels:
                found.add(s.labels)
        return sorted(found)
