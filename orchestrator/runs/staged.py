"""What a run has in the artefact store: models, tensors, input sets, bundles, by their hashes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from device_worker import wire
from orchestrator.conditions import CLEAN, parse


class _Staged(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StagedTensor(_Staged):
    """A .npy in the artefact store, [samples, ...] exactly as the model takes it."""

    sha256: str
    size: int
    dtype: str
    shape: tuple[int, ...]


class StagedOutput(_Staged):
    """One output of a model; the lattice of its values where one is known.

    ``dtype``, ``shape``: as the file declares them; None where it leaves them open, and of an
    older Assay. An axis that is None is free.
    """

    name: str
    scale: float | None = None
    zero_point: int | None = None
    code_min: int | None = None
    code_max: int | None = None
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None


class Compiled(_Staged):
    """What an Edge TPU takes of a compiled file, read from the file itself.

    ``partitions``: operators that run on it, ``bytes``: of their programs; ``cpu``: kind -> count
    of the operators left to the CPU. ``source``: name and sha256 of the file it was compiled from,
    where the matrix says so.
    """

    partitions: int
    bytes: int
    cpu: dict[str, int]
    source: str | None = None
    source_sha256: str | None = None

    def text(self) -> str:
        """Its coverage in words, and where it comes from."""
        cpu = ", ".join(f"{kind} ×{n}" for kind, n in sorted(self.cpu.items()))
        count = sum(self.cpu.values())
        parts = [
            f"Edge TPU: {self.partitions} partition{'' if self.partitions == 1 else 's'}",
            f"{count} operator{'' if count == 1 else 's'} on the CPU{f': {cpu}' if cpu else ''}",
        ]
        origin = (
            f"compiled from {self.source} (sha256 {(self.source_sha256 or '')[:12]})"
            if self.source
            else "its source model is not named"
        )
        return f"{', '.join(parts)}; {origin}"


class Lineage(_Staged):
    """What `orchestrator.lineage` says of a file and its FP32 parent, tables left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    verdict: str
    reason: str
    tensors: int = 0
    matched: int = 0
    weights: int = 0
    within: int = 0
    worst: float | None = None
    correlation: float | None = None


class StagedModel(_Staged):
    """A model file as it was staged.

    ``compiled``: None unless the file is for an accelerator. ``lineage``: None for a parent and for
    a file without one; ``twin_lineage``: the same of the parent's twin in this file's format.
    ``saturable``, ``operators``, ``families``, ``signature``, ``unmeasured``: as in ModelInfo;
    older versions did not keep the last three.
    """

    sha256: str
    size: int
    format: str
    input_name: str
    outputs: tuple[StagedOutput, ...]
    compiled: Compiled | None = None
    lineage: Lineage | None = None
    twin_lineage: Lineage | None = None
    saturable: int = 0
    operators: dict[str, int] = Field(default_factory=dict)
    families: dict[str, tuple[int, int]] = Field(default_factory=dict)
    signature: str | None = None
    unmeasured: tuple[str, ...] = ()

    def only_part(self) -> str | None:
        """That the file has signatures which nothing is known of; None where it has none such."""
        if not self.unmeasured:
            return None
        ran = "its main graph" if self.signature is None else f"signature {self.signature!r}"
        others = ", ".join(repr(name) for name in self.unmeasured)
        return f"only {ran} is measured; nothing is known of {others}, in graphs of their own"


class StagedSet(_Staged):
    """An input set as the user gave it.

    ``x``, ``labels`` and ``slices`` (name -> ...) are artefacts (.npy). Runs of older versions kept
    no slices.
    """

    n: int
    x: str
    labels: str | None
    slices: dict[str, str] = Field(default_factory=dict)


class StagedBundle(_Staged):
    """A hermetic bundle (.tar.gz) in the artefact store."""

    sha256: str
    size: int


def twin_key(model: str) -> str:
    """No name of a model or a file has a tilde."""
    return f"{model}~twin"


class Staging(_Staged):
    """All that was staged for a run.

    Keys: "model.file", "model" (its FP32 parent) and `twin_key` (the parent in the other format),
    each with "/inputs" for its tensors. The tensor of samples that were drawn has "/condition"
    after that. ``bundles``: name -> the one that every device of the run gets under that name.
    ``spots``: "inputs/condition" -> artefact (.npy, int64) of the positions that were drawn,
    ascending.
    """

    models: dict[str, StagedModel]
    tensors: dict[str, StagedTensor]
    sets: dict[str, StagedSet]
    bundles: dict[str, StagedBundle] = Field(default_factory=dict)
    spots: dict[str, str] = Field(default_factory=dict)

    def job(
        self,
        attempt: str,
        key: str,
        inputs: str,
        runtime: wire.RuntimeSpec,
        condition: str = CLEAN,
    ) -> wire.Job:
        """The job for one pass of a staged model over a staged input set.

        Over all its samples, or over those drawn under the condition.
        """
        model = self.models[key]
        tensor = self.tensors[f"{key}/{parse(condition).tensor(inputs)}"]
        blob = wire.Blob(tensor.sha256, tensor.size)
        return wire.Job(
            attempt=attempt,
            model=wire.Blob(model.sha256, model.size),
            model_format=model.format,
            inputs=[wire.InputTensor(model.input_name, blob, tensor.dtype, list(tensor.shape))],
            runtime=runtime,
            samples=tensor.shape[0],
        )
