"""Rows with their numbers, grouped by what answered, and how far the members of a group spread."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import combinations

from orchestrator.analysis.rows_load import (
    CONFIDENCE,
    SEED,
    Json,
    Loaded,
    Rows,
    Set,
    described,
    document,
    named,
)
from orchestrator.analysis.rows_samples import Samples
from orchestrator.variance import device, fleet
from orchestrator.variance.answers import Answers
from orchestrator.variance.intervals import Rate, mean, rate
from orchestrator.variance.lattice import Array
from orchestrator.variance.observation import Row
from orchestrator.variance.softmax import Head, head
from orchestrator.variance.tasks import TaskError, disagree

GROUPINGS: Mapping[str, Callable[[Row], str]] = {
    "device": lambda row: row.device,
    "class": lambda row: row.device_class,
    "runtime": lambda row: row.runtime,
}


def grouped(loaded: Loaded, by: str, samples: int = 0) -> Json:
    """Each set's rows with their numbers, and each group's spread.

    ``by``: a key of GROUPINGS. ``samples``: how many samples to list per row.
    """
    return document(loaded, by, [_grouped(s, GROUPINGS[by], samples) for s in loaded.sets])


def _grouped(s: Set, of: Callable[[Row], str], shown: int) -> Json:
    labels, samples = s.truth.labels, Samples(s, shown)
    known: dict[str, Json] = {}  # most rows of a file hold equal bytes
    rows, groups = [], defaultdict(list)
    for case, answers in s.rows:
        if answers.digest not in known:
            known[answers.digest] = _stats(answers, s.parent, labels, samples if shown else None)
        rows.append({**described(s, case, answers), "group": of(case.row), **known[answers.digest]})
        groups[of(case.row)].append((case, answers))
    return {
        **named(s),
        "fp32": None if s.parent is None else _stats(s.parent[0], None, labels, None),
        "rows": rows,
        "groups": [{"group": name, **spread(members)} for name, members in sorted(groups.items())],
        "fleet": spread(s.rows),
    }


def _stats(
    answers: Answers,
    parent: tuple[Answers, Head] | None,
    labels: Array | None,
    samples: Samples | None,
) -> Json:
    try:
        found = device.stats(answers, head(answers), parent, labels, SEED)
        telling = samples.of_row(answers) if samples else []
    except TaskError as error:
        return {"problem": error.what}
    return {**dataclasses.asdict(found), "samples": telling}


def spread(rows: Rows) -> Json:
    """``vote_entropy``: of the samples, nats, the mean with its interval and the largest.

    ``worst_pair``: by disagreement.
    """
    answers = [found for _, found in rows]
    told: Json = {"rows": [case.id for case, _ in rows], "problem": None}
    empty = dict.fromkeys(("instability", "unanimity", "vote_entropy", "worst_pair"))
    if len(rows) < 2:
        return told | empty
    try:
        spread, votes = fleet.spread(answers, CONFIDENCE), fleet.vote_entropy(answers)
    except TaskError as error:
        return told | empty | {"problem": error.what}
    return told | {
        "instability": spread.instability and dataclasses.asdict(spread.instability),
        "unanimity": dataclasses.asdict(spread.unanimity),
        "vote_entropy": None if votes is None else _votes(votes),
        "worst_pair": _worst_pair(rows),
    }


def _votes(entropy: Array) -> Json:
    of = mean(entropy)
    return {
        "mean": of.value,
        "low": of.low,
        "high": of.high,
        "max": float(entropy.max()),
        "n": of.n,
    }


def _worst_pair(rows: Rows) -> Json:
    known: dict[tuple[str, str], Rate] = {}
    for (_, a), (_, b) in combinations(rows, 2):
        key = a.digest, b.digest
        if key not in known:
            differ = disagree(a.task, a.decisions, b.decisions)
            known[key] = rate(int(differ.sum()), a.n, CONFIDENCE)
    (left, a), (right, b) = max(
        combinations(rows, 2), key=lambda p: known[p[0][1].digest, p[1][1].digest].k
    )
    found = dataclasses.asdict(known[a.digest, b.digest])
    return {"a": left.id, "b": right.id, "disagreement": found}
