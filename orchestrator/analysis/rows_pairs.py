"""Single pairs of rows, everything that is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import combinations

from orchestrator.analysis.rows_load import CONFIDENCE, SEED, Json, Loaded, Set, document, named
from orchestrator.analysis.rows_samples import SHOWN, Samples
from orchestrator.errors import InputError
from orchestrator.matrix.policy import Policy
from orchestrator.signoff.case import Case
from orchestrator.signoff.tables import vs_reference
from orchestrator.variance import pair
from orchestrator.variance.answers import Answers
from orchestrator.variance.early import early
from orchestrator.variance.pair_stats import between
from orchestrator.variance.softmax import head
from orchestrator.variance.tasks import TaskError, disagree

SHOWN_NAMES = 20


def paired(loaded: Loaded, a: str, b: str, samples: int = SHOWN) -> Json:
    """Every pair of rows of which one fits ``a`` and the other ``b``, with so many ``samples``.

    A pattern (with ``*``, ``?``) fits a row by its device, class, runtime, "device/runtime" or ID,
    and by "device/runtime of RUN" over several runs. Raises InputError E-VARIANCE-PAIR where no
    pair is left.
    """
    policy = loaded.policy
    sets = [{**named(s), "pairs": _pairs(s, a, b, samples, policy)} for s in loaded.sets]
    if not any(s["pairs"] for s in sets):
        known = sorted(
            {name for s in loaded.sets for case, _ in s.rows for name in _whole(s, case)}
        )
        raise InputError(
            "E-VARIANCE-PAIR",
            f"no two rows of one model file fit {a!r} and {b!r}",
            where=loaded.run["id"],
            fix=f"there are {', '.join(known[:SHOWN_NAMES])}"
            + (f" and {len(known) - SHOWN_NAMES} more" if len(known) > SHOWN_NAMES else ""),
        )
    return document(loaded, "pair", [s for s in sets if s["pairs"]])


def _pairs(s: Set, a: str, b: str, shown: int, policy: Policy) -> list[Json]:
    found, samples = [], Samples(s, shown)
    for x, y in combinations(s.rows, 2):
        if fits(a, s, x[0]) and fits(b, s, y[0]):
            found.append(_pair(x, y, samples, policy))
        elif fits(a, s, y[0]) and fits(b, s, x[0]):
            found.append(_pair(y, x, samples, policy))
    return found


def _pair(
    x: tuple[Case, Answers], y: tuple[Case, Answers], samples: Samples, policy: Policy
) -> Json:
    (left, a), (right, b) = x, y
    told = {
        "a": left.id,
        "b": right.id,
        "attempts": [*left.clean_attempts, *right.clean_attempts],
    }
    try:
        codes = pair.compare(a, b)
        heads = head(a), head(b)
        more = between(a, b, heads, SEED)
        differ = disagree(a.task, a.decisions, b.decisions)
        soon = early(a, differ, policy.gates.G6.max_disagreement, policy.confidence)
        telling = samples.of_pair((a, heads[0]), (b, heads[1]), codes.sample_lsb)
    except TaskError as error:
        return {**told, "problem": error.what}
    return {
        **told,
        "problem": None,
        **dataclasses.asdict(vs_reference(codes, CONFIDENCE)),
        "lattice_differs": codes.lattice_differs,
        **dataclasses.asdict(more),
        "early": dataclasses.asdict(soon),
        "samples": telling,
    }


def fits(pattern: str, s: Set, case: Case) -> bool:
    """Whether a pattern, as of `paired`, is of this row of the set."""
    r = case.row
    names: Iterable[str] = (r.device, r.device_class, r.runtime, _who(case), case.id)
    return any(name == pattern or fnmatchcase(name, pattern) for name in (*names, *_whole(s, case)))


def _whole(s: Set, case: Case) -> list[str]:
    """How a row is told from all others: over several runs, in each that it comes from."""
    return [f"{_who(case)} of {run}" for run, _ in s.given.get(case.id, ())] or [_who(case)]


def _who(case: Case) -> str:
    return f"{case.row.device}/{case.row.runtime}"
