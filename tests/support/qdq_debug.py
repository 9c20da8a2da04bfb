"""ONNX Runtime's own comparison of a Q/DQ file with its FP32 parent, as the oracle of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import qdq_loss_debug

from orchestrator.diagnosis.pair import Trial, Tried
from orchestrator.models.graph import Array


def sqnr(model: bytes, parent: bytes, samples: NDArray[np.float32]) -> dict[str, float]:
    """Tensor of the parent -> dB of what the model, unoptimised, has there.

    ``samples`` [n, 1, ...], of models with one input.
    """
    found = []
    with tempfile.TemporaryDirectory() as name:
        for i, data in enumerate((model, parent)):
            plain, tapped = Path(name) / f"{i}.onnx", Path(name) / f"{i}-tapped.onnx"
            plain.write_bytes(data)
            qdq_loss_debug.modify_model_output_intermediate_tensors(plain, tapped)
            (given,) = onnxruntime.InferenceSession(data, providers=[CPU]).get_inputs()
            fed: Any = ({given.name: x} for x in samples)
            found.append(qdq_loss_debug.collect_activations(str(tapped), fed))
    matched = qdq_loss_debug.create_activation_matching(*found)
    errors = qdq_loss_debug.compute_activation_error(matched)
    return {tensor: error["xmodel_err"] for tensor, error in errors.items()}


CPU = "CPUExecutionProvider"


@dataclass(frozen=True, eq=False)
class Bare:
    """ONNX Runtime in this process with the threads that it takes by itself, and nothing else.

    ``optimise`` False: never, as the oracle runs what it compares.
    """

    optimise: bool = True
    name: str = "bare"

    def run(self, trials: Sequence[Trial], *, optimise: bool = True) -> list[Tried]:
        return [self._try(trial, optimise and self.optimise) for trial in trials]

    def _try(self, trial: Trial, optimise: bool) -> Tried:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if not optimise:
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        graph: bytes | None = None
        if trial.graph:
            with tempfile.TemporaryDirectory() as folder:
                saved = Path(folder) / "graph.onnx"
                options.optimized_model_filepath = str(saved)
                onnxruntime.InferenceSession(trial.model, options, providers=[CPU])
                graph = saved.read_bytes()
            options.optimized_model_filepath = ""
        session = onnxruntime.InferenceSession(trial.model, options, providers=[CPU])
        names = [given.name for given in session.get_inputs()]
        outputs: tuple[Array, ...] = ()
        for i in range(len(trial.inputs[0])):
            fed = dict(zip(names, (x[i] for x in trial.inputs), strict=True))
            row = session.run(None, fed)
            if not i:
                outputs = tuple(np.empty((len(trial.inputs[0]), *y.shape), y.dtype) for y in row)
            for whole, y in zip(outputs, row, strict=True):
                whole[i] = y
        return Tried(outputs, graph)
