"""``python -m tests.benchmarks.validity [--count N] [--seed S] [--json FILE]``: the table."""

from __future__ import annotations

import argparse
import json
import logging
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from orchestrator.errors import AssayError
from tests.benchmarks.validity import defects, held_out, inner, nulls
from tests.benchmarks.validity.drawn import drawn
from tests.benchmarks.validity.draws import Planter
from tests.benchmarks.validity.score import Score, results, score
from tests.benchmarks.validity.table import lines
from tests.benchmarks.validity.world import World, quickstart, world

NETS = 5
"""Of the held-out corpus."""


@dataclass(frozen=True)
class Corpus:
    """What a benchmark of validity gave.

    ``missing``: what this machine lacks or cannot show, and why; ``seconds``: it took to make and
    run.
    """

    name: str
    defects: list[Score]
    nulls: list[Score]
    missing: dict[str, str]
    seconds: float


def first(seed: int, count: int, *, samples: int = 1000, boards: bool = True) -> Corpus:
    """Defects of the quickstart's nets, ``count`` of each kind, and as many nulls."""
    with world(quickstart(samples), boards) as there:
        planters = [*defects.real(there), *defects.PLANTERS, *inner.PLANTERS]
        return _corpus("quickstart", there, [seed, 0], count, planters, nulls.quiet(there))


def second(seed: int, count: int, *, nets: int = NETS, boards: bool = True) -> Corpus:
    """The same of ``nets`` nets drawn at random, spoilt in other ways."""
    random = np.random.default_rng([seed, 1])
    made = [drawn(f"net {n}", random) for n in range(nets)]
    with world([one.net for one in made], boards) as there:
        planters, quiet = held_out.planters(there, made), held_out.quiet(there)
        return _corpus("held out", there, [seed, 2], count, planters, quiet)


def _corpus(
    name: str,
    there: World,
    seed: Sequence[int],
    count: int,
    planters: Sequence[Planter],
    quiet: Sequence[Planter],
) -> Corpus:
    begin, random = time.monotonic(), np.random.default_rng(seed)
    more = -(-len(planters) * count // len(quiet))
    todo = [(p, count) for p in planters] + [(p, more) for p in quiet]
    done, missing = [], dict(there.missing)
    for n, (planter, cases) in enumerate(todo, 1):
        found, short = results(planter, there, random, cases)
        done += [score(found)] if found else []
        missing |= {short.kind: short.why} if short else {}
        after = time.monotonic() - begin  # the table comes minutes later, at the end
        print(f"{name}: {n} of {len(todo)} kinds, {after:.0f} s", file=sys.stderr, flush=True)
    planted, silent = ([s for s in done if s.null is null] for null in (False, True))
    return Corpus(name, planted, silent, missing, time.monotonic() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.validity")
    parser.add_argument("--count", type=int, default=20, help="cases of each kind of defect")
    parser.add_argument("--seed", type=int, help="default: a new one every time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    # ONNX Runtime's quantiser recommends a pre-processing for every file: hundreds of lines.
    logging.disable(logging.WARNING)
    print(f"seed {seed}, --count {given.count}", file=sys.stderr, flush=True)
    told = []
    for make in (first, second):
        try:
            corpus = make(seed, given.count)
        except AssayError as error:  # a board that another run holds, say
            sys.exit(f"validity: {error}")
        title = f"{corpus.name}, seed {seed}, --count {given.count}, {corpus.seconds:.0f} s"
        print("\n".join(lines(title, corpus.defects, corpus.nulls, corpus.missing)), flush=True)
        told.append(asdict(corpus))
    if given.json is not None:
        given.json.write_text(json.dumps({"seed": seed, "corpora": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
