"""Whether a model's outputs and a set's labels can serve its task, before any device is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.errors import InputError
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.yamlfile import Loc
from orchestrator.models.inspect import TensorInfo
from orchestrator.staging.dataset import Dataset
from orchestrator.variance.lattice import Output
from orchestrator.variance.tasks import TaskError, check_labels, decisions, task_of, tensor


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
    model, _, inputs = names
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
        what, fix = error.what, error.fix
        if not 0 <= task.output < len(outputs) or not _unsaid(outputs[task.output]):
            raise _mismatch(error.id, names, what, where(loc), fix) from None
        what = f"the file does not say the shape of its output {outputs[task.output].name!r}"
        what += ", which is then known only after a run: not supported"
        fix = "write the output's shape into the file, with as many axes as it has"
        raise _mismatch(error.id, names, what, where(loc), fix) from None


def _unsaid(output: TensorInfo) -> bool:
    """Whether nothing is known of a sample's elements: no axis at all, or one of any length."""
    return output.shape in ((), (-1,))


def _mismatch(
    id: str, names: tuple[str, str, str], what: str, where: str, fix: str | None
) -> InputError:
    model, file, inputs = names
    return InputError(id, f"{model}.{file} on {inputs}: {what}", where=where, fix=fix)


def _outputs(infos: Sequence[TensorInfo], n: int) -> list[Output]:
    """Outputs of the right form for n samples; all their elements are one zero in memory."""
    zero = np.zeros((), np.float32)
    return [Output(o.name, np.broadcast_to(zero, (n, o.elements() or 0))) for o in infos]
