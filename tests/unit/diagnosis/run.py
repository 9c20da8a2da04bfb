"""Runtimes of this process as sides of a comparison, without a device in between."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from device_worker.errors import WorkerError
from device_worker.runtimes import FORMATS, open_model
from device_worker.wire import RuntimeSpec
from orchestrator.diagnosis.pair import Trial, Tried
from orchestrator.models.graph import Array


@dataclass(frozen=True, eq=False)
class Here:
    """``spoil``: what this side does to every model before it runs it, as a defect would."""

    spec: RuntimeSpec
    name: str = "here"
    spoil: Callable[[bytes], bytes] = bytes

    def run(self, trials: Sequence[Trial], *, optimise: bool = True) -> list[Tried]:
        return [self._try(trial, replace(self.spec, optimise=optimise)) for trial in trials]

    def _try(self, trial: Trial, spec: RuntimeSpec) -> Tried:
        form = FORMATS[spec.runtime]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model.{form}"
            path.write_bytes(self.spoil(trial.model))
            try:
                runtime: Any = open_model(str(path), form, spec)
                rows = [
                    runtime.run([x[i] for x in trial.inputs]) for i in range(len(trial.inputs[0]))
                ]
            except WorkerError as error:
                return Tried(error=error.what)
            graph = runtime.graph() if trial.graph else None
            outputs = tuple(np.stack(parts) for parts in zip(*rows, strict=True))
            plan = runtime.backend().plan_sha256
            runtime.close()
        return Tried(outputs, graph, plan)


def run(model: bytes, inputs: Sequence[Array], spec: RuntimeSpec) -> tuple[Array, ...]:
    """``inputs`` [samples, *shape of the tensor] each; outputs likewise."""
    (tried,) = Here(spec).run([Trial("it", model, tuple(inputs))], optimise=spec.optimise)
    assert tried.error is None, tried.error
    return tried.outputs
