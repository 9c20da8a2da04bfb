"""Everything the comparisons need of one set of outputs, read once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance import lattice, tasks
from orchestrator.variance.lattice import Array, Output
from orchestrator.variance.tasks import Mask, Task, TaskError


@dataclass(frozen=True, eq=False)
class Answers:
    """A row's answers to n samples.

    ``decisions`` as in tasks.decisions; ``correct`` bool [n], None without labels; ``narrow`` the
    codes of each output, [n, elements] in as small a type as came (widen before subtracting), or
    None; ``margins`` [n] in LSB or None; ``nonfinite`` samples with NaN or infinity in any output;
    ``digest`` equal where all output bytes, types and shapes are equal.
    """

    task: Task
    outputs: tuple[Output, ...]
    n: int
    decisions: Array
    correct: Mask | None
    narrow: tuple[NDArray[np.integer[Any]] | None, ...]
    margins: NDArray[np.float64] | None
    nonfinite: int
    digest: str

    @property
    def codes(self) -> tuple[NDArray[np.int64] | None, ...]:
        """One int64 [n, elements] or None for each output, made anew."""
        return tuple(None if q is None else q.astype(np.int64) for q in self.narrow)

    @cached_property
    def sums(self) -> tuple[int | None, ...]:
        """Exact sum of the codes of each output, or None: what mean differences are made of."""
        return tuple(None if q is None else _sum(q) for q in self.narrow)


def read(
    task: Task, outputs: Sequence[Output], labels: Array | None = None, inputs: Array | None = None
) -> Answers:
    """Raises TaskError where outputs, labels or inputs do not fit the task or each other."""
    decisive = tasks.tensor(task, outputs)
    counts = {o.values.shape[0] if o.values.ndim else 0 for o in outputs}
    if len(counts) != 1 or not len(decisive.values):
        raise TaskError("the outputs do not all have the same number (one at least) of samples")
    if labels is not None:
        tasks.check_labels(task, labels, outputs)
    decided = tasks.decisions(task, outputs, inputs)
    return Answers(
        task=task,
        outputs=tuple(outputs),
        n=len(decided),
        decisions=decided,
        correct=None if labels is None else tasks.correct(task, decided, labels),
        narrow=tuple(_narrow(o) for o in outputs),
        margins=tasks.margins(task, outputs),
        nonfinite=_nonfinite(outputs),
        digest=_digest(outputs),
    )


def first(answers: Answers, n: int) -> Answers:
    """The first ``n`` samples, as if there had been no others; 1 <= n <= answers.n."""
    if n == answers.n:
        return answers
    outputs = tuple(replace(o, values=o.values[:n]) for o in answers.outputs)
    return Answers(
        task=answers.task,
        outputs=outputs,
        n=n,
        decisions=answers.decisions[:n],
        correct=None if answers.correct is None else answers.correct[:n],
        narrow=tuple(_narrow(o) for o in outputs),
        margins=None if answers.margins is None else answers.margins[:n],
        nonfinite=_nonfinite(outputs),
        digest=_digest(outputs),
    )


def _narrow(output: Output) -> NDArray[np.integer[Any]] | None:
    """Integer outputs are their own codes and are not copied: a farm holds many."""
    if output.values.dtype.kind in "iu":
        return output.values.reshape(len(output.values), -1)
    found = lattice.codes(output)
    if found is None or not found.size:
        return found
    return found.astype(np.promote_types(*map(np.min_scalar_type, (found.min(), found.max()))))


def _sum(codes: NDArray[np.integer[Any]]) -> int:
    """Sums of 64-bit codes may not fit 64 bits."""
    return int(codes.sum(dtype=np.int64 if codes.itemsize <= 4 else object))


def _nonfinite(outputs: Sequence[Output]) -> int:
    bad = np.zeros(len(outputs[0].values), dtype=bool)
    for output in outputs:
        if output.values.dtype.kind == "f":
            bad |= ~np.isfinite(output.values.reshape(len(bad), -1)).all(axis=1)
    return int(bad.sum())


def _digest(outputs: Sequence[Output]) -> str:
    found = hashlib.sha256()
    for o in outputs:
        lattice_of = (o.scale, o.zero_point, o.code_min, o.code_max)
        found.update(repr((o.values.dtype.str, o.values.shape, lattice_of)).encode())
        found.update(np.ascontiguousarray(o.values).tobytes())
    return found.hexdigest()
