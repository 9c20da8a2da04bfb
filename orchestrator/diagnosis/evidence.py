"""All that is known of two answers, and what is concluded from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from orchestrator.diagnosis.signature import Signature
from orchestrator.variance.repeatability import Reordered

VNNI = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "avx_vnni_int8"})


class Mechanism(StrEnum):
    IDENTICAL = "identical"
    DECODE = "decode/preprocess"
    STATE = "state carry-over"
    ORDER = "order dependence"
    NONDETERMINISM = "nondeterminism"
    FAULT = "fault"
    LAYOUT = "layout"
    FLOAT = "float partition/fallback"
    PLAN = "plan"
    SATURATION = "saturation"
    ROUNDING = "rounding"
    KERNEL = "kernel/version"
    UNKNOWN = "unknown"


Confidence = Literal["certain", "likely", "possible"]
"""certain: shown directly. likely: nothing else that is known fits. possible: fits, unproven."""


@dataclass(frozen=True)
class Side:
    """One of the two answers.

    ``row``: who answered, for people. ``factors``: what two answers may differ in, by the names of
    `variance.factors` -> its value here. ``inputs``: hashes of the tensors
    that were fed. ``operators``: of the optimised graph, type -> count, empty where unknown.
    ``mismatches`` of ``repeated`` outputs differ from this side's own first pass; ``order``: what
    another order of its samples changed, None where it was not asked. ``pair_sums``: whether its
    CPU adds products of bytes in pairs in int16, None where unknown. ``accelerated``: runs on more
    than the CPU.
    ``arithmetic``: operator family -> what the probes say it computes, empty where not probed.
    """

    row: str
    factors: Mapping[str, str]
    inputs: tuple[str, ...]
    fallbacks: tuple[str, ...] = ()
    operators: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0
    mismatches: int = 0
    order: Reordered | None = None
    pair_sums: bool | None = None
    accelerated: bool = False
    arithmetic: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Guilty:
    """Operators of one kind that differ on equal inputs.

    ``count`` of them, by at most ``max_lsb`` steps; None: they compute floats.
    """

    kind: str
    count: int
    max_lsb: int | None

    def __str__(self) -> str:
        size = "" if self.max_lsb is None else f", max {self.max_lsb} LSB"
        return f"{self.count} {self.kind}{size}"


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of why two rows differ.

    ``changed``: the factors that differ, as `variance.factors.changed` names them, None where
    something is unknown. ``saturable``: products of the file that can leave int16 in pair sums.
    ``families``: operator families that the file uses, None: not known, so all may matter.
    ``unreached``: those whose difference the file's operators do not meet, each with the reason.
    ``guilty``: the operators found to differ on equal inputs; none where none were looked for.
    ``plan_matters``: whether b answers differently under a's plan than under its own, None where
    that was not tried.
    """

    a: Side
    b: Side
    signature: Signature
    changed: tuple[str, ...] | None = None
    saturable: int = 0
    families: frozenset[str] | None = None
    unreached: Mapping[str, str] = field(default_factory=dict)
    guilty: tuple[Guilty, ...] = ()
    plan_matters: bool | None = None

    @property
    def two_units(self) -> bool:
        """Whether another unit's answer stands beside the one's: none is at fault alone."""
        units = [side.factors.get("unit") for side in (self.a, self.b)]
        return units[0] != units[1]


@dataclass(frozen=True)
class Attribution:
    """``factors``: names of what changed between the two, None where unknown.

    ``because``: the evidence, a sentence each. ``blamed``: the row at fault, if one is. ``fix``:
    what is known to help.
    """

    mechanism: Mechanism
    factors: tuple[str, ...] | None
    confidence: Confidence
    because: tuple[str, ...]
    blamed: str | None = None
    fix: str | None = None


def adds_pairs_in_int16(machine: str | None, isa: frozenset[str]) -> bool | None:
    """Whether int8 products go through VPMADDUBSW here; None where the CPU is not known.

    x86 with AVX2 and without VNNI. ONNX Runtime's kernels for older x86 (SSE4.1) widen first, and
    ARM has no such instruction.
    """
    if machine is None or not isa:
        return None
    if machine not in ("x86_64", "i686", "AMD64"):
        return False
    return "avx2" in isa and not isa & VNNI
