"""Equal fingerprint, equal codes: tested on every pair of answers that a store holds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from orchestrator.variance.intervals import upper_bound


@dataclass(frozen=True)
class Said:
    """An answer of somebody with a fingerprint that speaks for it.

    ``who``: device and configuration. ``question``: what two must share to be compared (model,
    inputs, threads ...), ``asked`` the same in words. ``content``: the content ID
    of everything that came out.
    """

    fingerprint: str
    who: str
    attempt: str
    question: tuple[str, ...]
    content: str
    asked: str = ""


@dataclass(frozen=True)
class Check:
    """A spot check held against a whole answer, of the same class: ``differing`` samples do."""

    spot: Said
    full: Said
    differing: int


@dataclass(frozen=True)
class Tested:
    """Of ``pairs`` with equal fingerprints and one question ``confirmed`` have equal outputs.

    ``counterexamples``: for each question, one pair for every two answers that differ, and every
    spot check that does. ``apart``: every two (by ``who``) that ever answered a question
    differently, and how; who answered one in several ways is apart from itself.
    """

    pairs: int
    confirmed: int
    counterexamples: tuple[tuple[Said, Said], ...]
    apart: Mapping[frozenset[str], tuple[Said, Said]] = field(default_factory=dict)

    @property
    def at_most(self) -> float | None:
        """One-sided 95 % upper bound on the share of exceptions (Clopper-Pearson), None untested.

        Pairs of one class share answers, so for several units of a class it is too narrow.
        """
        return upper_bound(self.pairs - self.confirmed, self.pairs) if self.pairs else None

    def between(self, a: str, b: str) -> tuple[Said, Said] | None:
        """What sets two (by ``who``) apart, None: nothing. Who is apart from itself is from all."""
        pairs = (frozenset((a, b)), frozenset((a,)), frozenset((b,)))
        return next((self.apart[pair] for pair in pairs if pair in self.apart), None)


def configuration(runtime: str, kernels: str) -> str:
    """Under which name a fingerprint of such a row is kept; no such name exists for others.

    Kernels (as ``Factors.kernels``) that fell back, delegates and options have names of their own
    here, and none there.
    """
    plain = runtime == "onnxruntime" and kernels == "default"
    return runtime if plain else f"{runtime}/{kernels}"


_Pair = tuple[str, tuple[str, ...], frozenset[str]]
"""Fingerprint, question, who."""


def counted(answers: Iterable[Said], checks: Iterable[Check] = ()) -> Tested:
    """What all answers ever given confirm or contradict of the classes.

    Not the newest answers alone: one that was given anew and came out differently is a fact about
    its device. A pair is confirmed if all its answers agree; a device that answered one question in
    several ways is a pair with itself that does not.
    """
    alike: dict[_Pair, bool] = {}
    apart: dict[frozenset[str], tuple[Said, Said]] = {}
    found: dict[tuple[Said, Said], None] = {}

    def count(a: Said, b: Said, same: bool) -> bool:
        """Whether it is the first difference of this pair."""
        who = frozenset((a.who, b.who))
        before = alike.get((a.fingerprint, a.question, who), True)
        alike[a.fingerprint, a.question, who] = before and same
        if not same:
            apart.setdefault(who, (a, b))
        return before and not same

    for group in _asked(answers):
        first: dict[str, Said] = {}
        for answer in group:
            first.setdefault(answer.content, answer)
        found |= dict.fromkeys(combinations(first.values(), 2))
        for a, b in combinations(group, 2):
            count(a, b, a.content == b.content)
    for check in checks:
        if count(check.spot, check.full, not check.differing):
            found[check.spot, check.full] = None
    return Tested(len(alike), sum(alike.values()), tuple(found), apart)


def _asked(answers: Iterable[Said]) -> list[list[Said]]:
    """For each fingerprint and question the distinct answers of each who, the first of equals."""
    asked: dict[tuple[str, tuple[str, ...]], dict[tuple[str, str], Said]] = {}
    for a in answers:
        asked.setdefault((a.fingerprint, a.question), {}).setdefault((a.who, a.content), a)
    return [list(group.values()) for group in asked.values()]


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
        yield f"  counterexample: {evidence(a, b)}"


def evidence(a: Said, b: Said) -> str:
    """Which data set two apart."""
    attempts = f"attempts {a.attempt[:12]} {b.attempt[:12]}"
    return f"{a.who} and {b.who} on {a.asked}, {attempts}"


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
                "asked": a.asked,
                "attempts": [a.attempt, b.attempt],
            }
            for a, b in found.counterexamples
        ],
    }
