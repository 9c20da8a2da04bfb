"""Single samples with their numbers, the most telling ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.analysis.rows_load import Json, Set
from orchestrator.variance import sample
from orchestrator.variance.answers import Answers
from orchestrator.variance.lattice import Array, real
from orchestrator.variance.softmax import Head
from orchestrator.variance.tasks import disagree

SHOWN = 10
"""Of a pair, where no number is asked for."""


class Samples:
    """The samples of a set; figures of equal bytes are computed once."""

    def __init__(self, s: Set, shown: int) -> None:
        self._set, self._shown = s, shown
        self._known: dict[str, dict[str, Array]] = {}

    def of_pair(
        self, a: tuple[Answers, Head], b: tuple[Answers, Head], distance: Array | None
    ) -> list[Json]:
        """Samples that differ, changed decisions first.

        Then by ``distance`` [n], max |LSB| (without codes by ``max_abs``, real units), then by
        ``jsd`` in nats. "a" and "b": figures of each side (`variance.sample.samples`). Raises
        TaskError where their shapes differ.
        """
        (left, p), (right, q) = a, b
        apart: dict[str, Array] = {"differ": disagree(left.task, left.decisions, right.decisions)}
        if distance is not None:
            apart["lsb"] = distance
        else:
            apart["max_abs"] = _max_abs(left, right)
        if p.p is not None and q.p is not None:
            apart["jsd"] = sample.jsd(p, q)
        sides = {"a": self._figures(left), "b": self._figures(right)}
        return [
            {"sample": i, **_at(apart, i), **{side: _at(f, i) for side, f in sides.items()}}
            for i in _order(list(apart.values()), self._shown)
        ]

    def of_row(self, answers: Answers) -> list[Json]:
        """Samples at which a row leaves its FP32 parent; none without a parent.

        Those that only the parent gets right come first, then other changed decisions, then the
        rest by KL divergence.
        """
        figures = self._figures(answers)
        keys = [figures[name] for name in ("c_to_i", "disagree", "kld") if name in figures]
        return [{"sample": i, **_at(figures, i)} for i in _order(keys, self._shown)]

    def _figures(self, answers: Answers) -> dict[str, Array]:
        if answers.digest not in self._known:
            truth, parent = self._set.truth, self._set.parent
            fp32 = parent[0] if parent else None
            labels = None if truth.labels is None else {"label": truth.labels}
            found = sample.samples(answers, truth.labels, fp32)
            self._known[answers.digest] = (labels or {}) | found
        return self._known[answers.digest]


def _max_abs(a: Answers, b: Answers) -> Array:
    """[n]; NaN where a side is not finite."""
    found = np.zeros(a.n)
    for x, y in zip(a.outputs, b.outputs, strict=True):
        with np.errstate(invalid="ignore"):
            found = np.maximum(found, np.abs(real(x) - real(y)).max(axis=1, initial=0))
    return found


def _order(keys: Sequence[Array], shown: int) -> list[int]:
    """The first ``shown`` samples by ``keys`` [n] each, larger first; none for which all are 0."""
    if not keys:
        return []
    known = [np.nan_to_num(np.asarray(key, np.float64)) for key in keys]
    order = np.lexsort([-key for key in reversed(known)])[:shown]
    return [int(i) for i in order if any(key[i] for key in known)]


def _at(figures: Mapping[str, Array], i: int) -> Json:
    return {name: values[i].tolist() for name, values in figures.items()}
