"""Rows slice by slice."""

from __future__ import annotations

import dataclasses

import numpy as np

from orchestrator.analysis.rows_load import SEED, Json, Loaded, Set, described, document, named
from orchestrator.errors import NotAvailableError
from orchestrator.variance import slices
from orchestrator.variance.softmax import head
from orchestrator.variance.tasks import TaskError

SLICE = "slice"


def sliced(loaded: Loaded) -> Json:
    """Each row by the slices of its input set. Raises NotAvailableError E-VARIANCE-SLICES."""
    sets = [s for s in loaded.sets if s.truth.slices]
    if not sets:
        raise NotAvailableError(
            "E-VARIANCE-SLICES",
            "no input set of this run has slice columns",
            where=loaded.run["id"],
            fix="name some under `slices` of an input set, in a matrix to be run",
        )
    return document(loaded, SLICE, [_sliced(s) for s in sets])


def _sliced(s: Set) -> Json:
    """The slices of a set, with Holm's correction over all slices of all its distinct rows.

    Rows with equal bytes make one claim, however many devices repeat it.
    """
    known: dict[str, list[slices.Slice] | str] = {}
    fp32 = s.parent[0] if s.parent else None
    for _, answers in s.rows:
        if answers.digest not in known:
            try:
                own = head(answers)
                known[answers.digest] = slices.slices(
                    answers, fp32, own, s.truth.slices, SEED, s.truth.same
                )
            except TaskError as error:
                known[answers.digest] = error.what
    every = [x for found in known.values() if not isinstance(found, str) for x in found]
    adjusted = {id(x): p for x, p in zip(every, slices.adjusted(every), strict=True)}
    rows = []
    for case, answers in s.rows:
        told, found = described(s, case, answers), known[answers.digest]
        if isinstance(found, str):
            rows.append({**told, "problem": found, "slices": [], "worst": None})
            continue
        each = [_told(x, adjusted[id(x)]) for x in found]
        rows.append({**told, "problem": None, "slices": each, "worst": _worst(found)})
    same = s.truth.same
    repeated = 0 if same is None else len(same) - len(np.unique(same))
    return {**named(s), "columns": sorted(s.truth.slices), "repeated": repeated, "rows": rows}


def _worst(found: list[slices.Slice]) -> Json | None:
    worst = slices.worst(found)
    if worst is None:
        return None
    least, gap = worst
    change = least.change and least.change.difference
    told = dataclasses.asdict(gap)
    return {"column": least.column, "value": least.value, "difference": change, "gap": told}


def _told(x: slices.Slice, p_adjusted: float | None) -> Json:
    loses = p_adjusted is not None and p_adjusted < slices.ALPHA
    return {**dataclasses.asdict(x), "p_adjusted": p_adjusted, "loses": loses}
