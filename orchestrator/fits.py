"""Whether a model's outputs and a set's labels can serve its task, before any device is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.errors import InputError
from orchestrator.inputs.dataset import Dataset
from orchestrator.inputs.inspect import TensorInfo
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.yamlfile import Loc
from orchestrator.observe import task_of
from orchestrator.variance.lattice import Output
from orchestrator.variance.tasks import TaskError, check_labels, decisions, tensor


def check(
    matrix: Matrix,
    names: tuple[str, str, str],
    outputs: Sequence[TensorInfo],
    dataset: Dataset,
    where: Callable[[Loc], str],
) -> None:
    """InputError E-TASK-MISMATCH unless the task can be decided, and held against the labels.

    ``names``: of model, file and input set; ``outputs``: the file's. What has a dynamic shape is
    left to the run. ``where``: "file:line" of an entry of the matrix.
    """
    model, file, inputs = names
    m = [spec.name for spec in matrix.models].index(model)
    i = [spec.name for spec in matrix.inputs].index(inputs)
    labels = "label" if matrix.inputs[i].type == "csv" else "labels"
    loc: Loc = ("models", m, "task", "output")
    task = task_of(matrix.models[m].task.model_dump())
    try:
        tensor(task, _outputs(outputs, 1))
        if outputs[task.output].elements() is None:
            return
        decisions(task, _outputs(outputs, 1), dataset.x[:1])
        loc = ("inputs", i, labels)
        if dataset.labels is not None:
            check_labels(task, dataset.labels, _outputs(outputs, len(dataset.x)))
    except TaskError as error:
        what = f"{model}.{file} on {inputs}: {error.what}"
        raise InputError(error.id, what, where=where(loc), mend=error.mend) from None


def _outputs(infos: Sequence[TensorInfo], n: int) -> list[Output]:
    """Outputs of the right form for n samples; all their elements are one zero in memory."""
    zero = np.zeros((), np.float32)
    return [Output(o.name, np.broadcast_to(zero, (n, o.elements() or 0))) for o in infos]
