"""Which rows are bit-identical, and how far those apart are that are not."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from itertools import combinations

from orchestrator.analysis.rows_groups import spread
from orchestrator.analysis.rows_load import (
    CONFIDENCE,
    Json,
    Loaded,
    Set,
    described,
    document,
    named,
)
from orchestrator.signoff.tables import vs_reference
from orchestrator.variance import pair
from orchestrator.variance.tasks import TaskError


def alike(loaded: Loaded) -> Json:
    """Each set's rows, those of equal bytes in groups, and pairs of rows of different bytes.

    Of a group only the first is compared with others: the rest would say the same.
    """
    return document(loaded, "answer", [_alike(s) for s in loaded.sets])


def _alike(s: Set) -> Json:
    equal: dict[str, list[str]] = defaultdict(list)
    firsts = []
    for case, answers in s.rows:
        if answers.digest not in equal:
            firsts.append((case.id, answers))
        equal[answers.digest].append(case.id)
    pairs = []
    for (left, a), (right, b) in combinations(firsts, 2):
        told: Json = {"a": left, "b": right, "problem": None}
        try:
            told |= dataclasses.asdict(vs_reference(pair.compare(a, b), CONFIDENCE))
        except TaskError as error:
            told["problem"] = error.what
        pairs.append(told)
    return {
        **named(s),
        "rows": [described(s, case, answers) for case, answers in s.rows],
        "identical": [ids for ids in equal.values() if len(ids) > 1],
        "pairs": pairs,
        "fleet": spread(s.rows),
    }
