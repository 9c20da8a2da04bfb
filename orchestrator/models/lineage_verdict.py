"""Weights of an INT8 file and of its supposed parent → where the one comes from.

Pure: arrays in, a verdict with its numbers out. All weights are compared and none is sampled, so
shares are counts of a whole and need no interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from orchestrator.models.match import ALIKE, Match, Parents
from orchestrator.models.steps import on_lattice
from orchestrator.models.weights import Real, Weights

Verdict = Literal["nearest-step", "derived", "unrelated", "not-fp32", "inconclusive"]

APART = 0.3
"""A correlation up to which two nets are unrelated.

Other runs of one training reach 0.07, and a layer of nine weights much more by chance. Between this
and `ALIKE` nothing is said.
"""
LEAST = 64
"""Weights below which a correlation is chance: its standard error is 1 / sqrt(n)."""
FEW = 1e-3
"""A share of weights off their nearest step that looks like damage and not like training."""
EQUALISED = 0.95
MOST_CLIPPED = 0.05
"""A share of weights beyond the type's range from which on "nearest" says little."""


@dataclass(frozen=True)
class Lineage:
    """How the constants of an INT8 file compare with those of its claimed parent.

    ``tensors`` integer weight constants of the INT8 file, ``matched`` of them with a float
    counterpart in the parent; they hold ``weights`` numbers, ``within`` of which lie no more than
    half a step from the parent's (``worst``: steps at most, ``clipped``: at the end of the type's
    range). ``correlation``: mean over all weights of Pearson's r of their tensor, 0 where it has no
    counterpart. ``equalised``: weights within half a step once each channel may have a factor, None
    where that was not asked. ``biases``/``biases_within``: bias constants, and those wholly within
    half of their own step. ``floats``/``floats_equal``: weight constants that the file kept in
    float, and those that equal one of the parent's. ``parent_quantised``: weight constants of the
    parent that are integers; ``parent_on_lattice``: of its ``parent_floats`` those that are
    dequantised ones.
    """

    verdict: Verdict
    reason: str
    tensors: int = 0
    matched: int = 0
    weights: int = 0
    within: int = 0
    worst: float | None = None
    clipped: int = 0
    correlation: float | None = None
    equalised: int | None = None
    biases: int = 0
    biases_within: int = 0
    floats: int = 0
    floats_equal: int = 0
    parent_quantised: int = 0
    parent_floats: int = 0
    parent_on_lattice: int = 0
    skipped: tuple[str, ...] = ()
    table: tuple[Match, ...] = field(default=())


def lineage(int8: Weights, fp32: Weights) -> Lineage:
    """The verdict on ``fp32`` as the parent of ``int8``, and what it rests on."""
    parents = Parents(fp32.reals)
    table = tuple(parents.match(codes) for codes in int8.codes)
    weights = [m for m in table if m.role == "weight"]
    biases = [m for m in table if m.role == "bias"]
    matched = [m for m in weights if m.parent is not None]
    total = sum(m.n for m in weights)
    floats = _weights(fp32)
    kept = _weights(int8)
    lattice = [r for r in floats if on_lattice(r.values)]
    on_steps = sum(r.values.size for r in lattice) * 2 >= sum(r.values.size for r in floats) > 0
    quantised = sum(c.role == "weight" for c in fp32.codes)
    found = Lineage(
        "inconclusive",
        "",
        tensors=len(weights),
        matched=len(matched),
        weights=total,
        within=sum(m.within or 0 for m in matched),
        worst=max((m.worst for m in matched if m.worst is not None), default=None),
        clipped=sum(m.clipped or 0 for m in matched),
        correlation=sum(m.n * (m.correlation or 0.0) for m in matched) / total if total else None,
        equalised=_equalised(weights),
        biases=len(biases),
        biases_within=sum(m.nearest for m in biases),
        floats=len(kept),
        floats_equal=sum(parents.holds(real) for real in kept),
        parent_quantised=quantised,
        parent_floats=len(floats),
        parent_on_lattice=len(lattice),
        skipped=int8.skipped,
        table=table,
    )
    verdict, reason = _judge(found, on_steps)
    return Lineage(**{**vars(found), "verdict": verdict, "reason": reason})


def _weights(model: Weights) -> list[Real]:
    return [r for r in model.reals if r.values.ndim > 1 and not r.folded]


def _equalised(weights: list[Match]) -> int | None:
    if all(m.equalised is None for m in weights):
        return None
    return sum(m.equalised if m.equalised is not None else m.within or 0 for m in weights)


def _judge(x: Lineage, on_steps: bool) -> tuple[Verdict, str]:
    share = f"{x.within} of {x.weights} weights within half a step"
    if x.parent_quantised:
        turned = "" if x.tensors else "; are the two files the other way round?"
        many = f"{x.parent_quantised} weight tensor{'s' if x.parent_quantised > 1 else ''}"
        return "not-fp32", f"the parent itself is quantised: {many} of it hold integers{turned}"
    if on_steps:
        many = f"{x.parent_on_lattice} of {x.parent_floats} of its weight tensors"
        return "not-fp32", f"the parent holds dequantised integers: {many} lie on an 8-bit lattice"
    if not x.tensors:
        why = f" ({'; '.join(x.skipped)})" if x.skipped else ""
        return "inconclusive", f"no quantised weights can be read from the INT8 file{why}"
    if not x.parent_floats:
        return "inconclusive", "no float weights can be read from the parent"
    if not x.matched:
        return "unrelated", f"none of {x.tensors} weight tensors has a counterpart of its shape"
    alike = x.correlation or 0.0
    if x.within == x.weights:
        return _nearest(x, share, alike)
    if x.weights < LEAST:
        return "inconclusive", f"{share}; too few to tell a relation from chance"
    told = f"correlation {alike:.3f}, {share}, {_off(x)}"
    if alike >= ALIKE:
        return "derived", _derived(x, told)
    if alike <= APART:
        return "unrelated", f"{told}: other weights"
    return "inconclusive", f"{told}: neither alike nor unlike"


def _nearest(x: Lineage, share: str, alike: float) -> tuple[Verdict, str]:
    if alike < ALIKE:
        return "inconclusive", f"{share}, but steps so coarse that other weights would be too"
    if x.clipped > MOST_CLIPPED * x.weights:
        return "derived", f"{share}, but {x.clipped} of them clipped at the end of the range"
    notes = []
    if x.clipped:
        notes.append(f"{x.clipped} clipped at the end of the range")
    if x.biases_within < x.biases:
        off = x.biases - x.biases_within
        notes.append(f"{off} of {x.biases} biases are not: corrected, or of another file")
    if x.floats_equal < x.floats:
        off = x.floats - x.floats_equal
        notes.append(f"{off} of {x.floats} float weight tensors in it are not the parent's")
    if x.skipped:
        notes.append(f"{len(x.skipped)} constants could not be read")
    return "nearest-step", "; ".join([f"{share}, {_off(x)}", *notes])


def _derived(x: Lineage, told: str) -> str:
    off = x.weights - x.within
    if x.matched < x.tensors:
        missing = x.tensors - x.matched
        return f"{told}; {missing} of {x.tensors} weight tensors have no counterpart"
    if x.equalised is not None and x.equalised >= EQUALISED * x.weights and off > FEW * x.weights:
        return (
            f"{told}; {x.equalised} within half a step once each channel may have a factor of its"
            " own: quantised after cross-layer equalisation"
        )
    if off <= FEW * x.weights:
        return f"{told}: single weights were changed after quantisation, or by damage"
    return f"{told}: fine-tuned, or trained with quantisation"


def _off(x: Lineage) -> str:
    return f"worst {x.worst:.5g} steps" if x.worst is not None else "worst unknown"
