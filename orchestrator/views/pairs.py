"""Single pairs of rows, everything that is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.signoff.case import Case
from orchestrator.signoff.tables import vs_reference
from orchestrator.variance import pair
from orchestrator.variance.answers import Answers
from orchestrator.variance.between import between
from orchestrator.variance.head import head
from orchestrator.variance.tasks import TaskError, disagree
from orchestrator.views.load import CONFIDENCE, SEED, Json, Loaded, Set, document, named

SHOWN_SAMPLES = 10


def paired(loaded: Loaded, a: str, b: str) -> Json:
    """Every pair of rows of which one fits ``a`` and the other ``b``.

    A pattern (with ``*``, ``?``) fits a row by its device, class, runtime, "device/runtime" or ID.
    Raises InputError E-VARIANCE-PAIR where no pair is left.
    """
    sets = [{**named(s), "pairs": _pairs(s, a, b)} for s in loaded.sets]
    if not any(s["pairs"] for s in sets):
        known = sorted({_who(case) for s in loaded.sets for case, _ in s.rows})
        raise InputError(
            "E-VARIANCE-PAIR",
            f"no two rows of one model file fit {a!r} and {b!r}",
            where=loaded.run["id"],
            mend=f"there are {', '.join(known)}",
        )
    return document(loaded, "pair", [s for s in sets if s["pairs"]])


def _pairs(s: Set, a: str, b: str) -> list[Json]:
    found = []
    for x, y in combinations(s.rows, 2):
        if _fits(a, x[0]) and _fits(b, y[0]):
            found.append(_pair(x, y))
        elif _fits(a, y[0]) and _fits(b, x[0]):
            found.append(_pair(y, x))
    return found


def _pair(x: tuple[Case, Answers], y: tuple[Case, Answers]) -> Json:
    (left, a), (right, b) = x, y
    told = {
        "a": left.id,
        "b": right.id,
        "attempts": [*left.clean_attempts, *right.clean_attempts],
    }
    try:
        codes = pair.compare(a, b)
        more = between(a, b, (head(a), head(b)), SEED)
        differ = disagree(a.task, a.decisions, b.decisions)
    except TaskError as error:
        return {**told, "problem": error.what}
    return {
        **told,
        "problem": None,
        **dataclasses.asdict(vs_reference(codes, CONFIDENCE)),
        "lattice_differs": codes.lattice_differs,
        **dataclasses.asdict(more),
        "samples": _telling(codes, differ),
    }


def _telling(codes: pair.Pair, differ: NDArray[np.bool_]) -> list[int]:
    """Samples to look at: those decided otherwise first, then by distance in LSB; no equal ones."""
    distance = np.zeros(codes.n, np.int64) if codes.sample_lsb is None else codes.sample_lsb
    order = np.lexsort((-distance, ~differ))[:SHOWN_SAMPLES]
    return [int(i) for i in order if differ[i] or distance[i]]


def _fits(pattern: str, case: Case) -> bool:
    r = case.row
    names: Iterable[str] = (r.device, r.device_class, r.runtime, _who(case), case.id)
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)


def _who(case: Case) -> str:
    return f"{case.row.device}/{case.row.runtime}"
