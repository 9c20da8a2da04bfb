"""``python -m tests.benchmarks.validity [--count N] [--seed S] [--json FILE]``: the table."""

from __future__ import annotations

import argparse
import json
import secrets
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np

from orchestrator.variance.intervals import Rate, lower_bound, upper_bound
from tests.benchmarks.validity import defects, nulls
from tests.benchmarks.validity.score import METHODS, Score, pooled, score
from tests.benchmarks.validity.world import HASWELL, World, world

CLAIMED = "the seeds' own detection rates: 60, 85, 90, 75, 80, 95 % by method, without a source"


def scores(there: World, seed: int, count: int) -> tuple[list[Score], list[Score]]:
    """(defects, nulls), ``count`` cases of each kind that this machine can make."""
    random = np.random.default_rng(seed)
    planters = [p for way, p in defects.REAL.values() if there.offers(way)] + [*defects.MADE]
    quiet = [*nulls.MADE, *([nulls.safe_on_haswell] if there.offers(HASWELL) else [])]
    more = -(-len(planters) * count // len(quiet))  # as many nulls as defects
    found = [score(defects.draw(p, there, random, count)) for p in planters]
    silent = []
    for planter in quiet:
        cases = [case for case, _ in zip(planter(there, random), range(more), strict=False)]
        silent.append(score(cases))
    return found, silent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.validity")
    parser.add_argument("--count", type=int, default=30, help="cases of each kind of defect")
    parser.add_argument("--seed", type=int, help="default: a new one every time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    with world() as there:
        found, silent = scores(there, seed, given.count)
        missing = dict(there.missing)
    print("\n".join(table(found, silent, seed, missing)))
    if given.json is not None:
        data = {
            "seed": seed,
            "defects": [asdict(s) for s in found],
            "nulls": [asdict(s) for s in silent],
        }
        given.json.write_text(json.dumps(data | {"missing": missing}, indent=1) + "\n")


def table(found: list[Score], silent: list[Score], seed: int, missing: dict[str, str]) -> list[str]:
    names = list(METHODS)
    head = f"{'':28}{'truth':36}{'n':>5}" + "".join(f"{name:>11}" for name in names)
    lines = [
        f"Validity, seed {seed}: share flagged by each method",
        head + f"{'named':>9}{'from':>8}",
    ]
    for real in (True, False):
        lines.append("real mechanisms" if real else "effects made up")
        lines += [_row(s, names) for s in found if s.real is real]
    lines += ["nothing wrong", *(_row(s, names) for s in silent)]
    for kind in (True, False):
        some = [s for s in found if s.real is kind]
        if some:
            what = "real mechanisms" if kind else "effects made up"
            every = pooled(s.flagged["all"] for s in some)
            named = pooled(s.named for s in some if s.named)
            lines.append(
                f"all together, {what}: found {_bound(every)}; named right {_bound(named)}"
            )
    alarms = pooled(s.flagged["all"] for s in silent)
    lines.append(
        f"false alarms {alarms.k} of {alarms.n}, "
        f"at most {100 * upper_bound(alarms.k, alarms.n):.2f} % (one-sided 95 %)"
    )
    lines.append(CLAIMED)
    lines += [f"not here: {name}: {why}" for name, why in missing.items()]
    for s in (*found, *silent):
        for said, count in Counter(text.rpartition(" at ")[0] for text in s.missed).most_common(3):
            lines.append(f"  {s.kind}: {count} said to be {said}")
    return lines


def _row(s: Score, names: list[str]) -> str:
    cells = "".join(f"{_percent(s.flagged[name]):>11}" for name in names)
    named = _percent(s.named) if s.named else "-"
    start = "-" if s.smallest is None else f"{s.smallest:.3g}"
    return f"  {s.kind:26}{s.truth:36}{s.flagged['all'].n:>5}{cells}{named:>9}{start:>8}"


def _percent(found: Rate) -> str:
    return "-" if found.rate is None else f"{100 * found.rate:.0f} %"


def _bound(found: Rate) -> str:
    low = lower_bound(found.k, found.n)
    return f"{found.k} of {found.n}, at least {100 * low:.1f} % (one-sided 95 %)"


if __name__ == "__main__":
    main()
