"""Equal fingerprint, equal codes: tested on every pair of answers that a store holds. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

from orchestrator.variance.intervals import upper_bound


@dataclass(frozen=True)
class Said:
    """An answer of somebody with a fingerprint.

    ``who``: device and configuration. ``question``: what two must share to be compared (model,
    inputs, threads ...). ``outputs``: hashes of everything that came out.
    """

    fingerprint: str
    who: str
    attempt: str
    question: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Tested:
    """Of ``pairs`` with equal fingerprints and one question ``confirmed`` have equal outputs.

    ``counterexamples``: for each question, one pair for every two answers that differ.
    """

    pairs: int
    confirmed: int
    counterexamples: tuple[tuple[Said, Said], ...]

    @property
    def at_most(self) -> float | None:
        """One-sided 95 % upper bound on the share of exceptions (Clopper-Pearson), None untested.

        Pairs of one class share answers, so for several units of a class it is too narrow.
        """
        return upper_bound(self.pairs - self.confirmed, self.pairs) if self.pairs else None


def configuration(runtime: str, kernels: str) -> str:
    """Under which name a fingerprint of such a row is kept; no such name exists for others.

    Kernels (as ``Factors.kernels``) that fell back, delegates and options have names of their own
    here, and none there.
    """
    plain = runtime == "onnxruntime" and kernels == "default"
    return runtime if plain else f"{runtime}/{kernels}"


def apart(answers: Iterable[Said]) -> frozenset[frozenset[str]]:
    """Every two of one fingerprint (by ``who``) that gave different answers to one question."""
    return frozenset(
        frozenset((a.who, b.who))
        for group in _asked(answers)
        for a, b in combinations(group, 2)
        if a.outputs != b.outputs
    )


def counted(answers: Iterable[Said]) -> Tested:
    """``answers`` oldest first: of each who and question the last one counts."""
    pairs = confirmed = 0
    apart: list[tuple[Said, Said]] = []
    for group in _asked(answers):
        alike: dict[tuple[str, ...], list[Said]] = defaultdict(list)
        for answer in group:
            alike[answer.outputs].append(answer)
        pairs += comb(len(group), 2)
        confirmed += sum(comb(len(same), 2) for same in alike.values())
        apart += combinations([same[0] for same in alike.values()], 2)
    return Tested(pairs, confirmed, tuple(apart))


def _asked(answers: Iterable[Said]) -> list[list[Said]]:
    """The newest answers of each fingerprint to each question, one for each who."""
    newest = {(a.fingerprint, a.question, a.who): a for a in answers}
    asked: dict[tuple[str, tuple[str, ...]], list[Said]] = defaultdict(list)
    for (fingerprint, question, _), answer in newest.items():
        asked[fingerprint, question].append(answer)
    return list(asked.values())


def lines(found: Tested) -> Iterator[str]:
    """The record in words."""
    if found.at_most is None:
        yield "equal fingerprint, equal codes: not tested, no two of a class have answered the same"
        return
    yield (
        f"equal fingerprint, equal codes: {found.confirmed} of {found.pairs} pairs of answers; "
        f"exceptions at most {100 * found.at_most:.2g} % (one-sided 95 %)"
    )
    for a, b in found.counterexamples:
        yield f"  counterexample: {a.who} and {b.who}, attempts {a.attempt[:12]} {b.attempt[:12]}"


def as_json(found: Tested) -> dict[str, Any]:
    return {
        "pairs": found.pairs,
        "confirmed": found.confirmed,
        "exceptions_at_most": found.at_most,
        "counterexamples": [
            {
                "fingerprint": a.fingerprint,
                "a": a.who,
                "b": b.who,
                "attempts": [a.attempt, b.attempt],
            }
            for a, b in found.counterexamples
        ],
    }
