"""The sign-off as plain data: verdicts, their reasons, and the numbers they rest on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

from orchestrator.errors import Exit
from orchestrator.signoff.standing import Standing
from orchestrator.variance.device import AgainstFp32
from orchestrator.variance.fleet import Fleet
from orchestrator.variance.intervals import Rate
from orchestrator.variance.observation import Soak

Verdict = Literal["fail", "error", "timeout", "inconclusive", "covered-by-class", "pass"]
GateVerdict = Literal["pass", "fail", "inconclusive", "not_applicable"]

PRECEDENCE: tuple[Verdict, ...] = (
    *("fail", "error", "timeout", "inconclusive", "covered-by-class", "pass"),
)
EXITS: dict[Verdict, Exit] = {
    "fail": Exit.FAIL,
    "error": Exit.INFRA,
    "timeout": Exit.TIMEOUT,
    "inconclusive": Exit.INCONCLUSIVE,
    "covered-by-class": Exit.INCONCLUSIVE,
    "pass": Exit.PASS,
}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The one that decides; nothing at all is inconclusive."""
    return min(verdicts, key=PRECEDENCE.index, default="inconclusive")


@dataclass(frozen=True)
class GateResult:
    """``bound``: the one-sided bound that decided, None for counting gates.

    ``p_fail``: probability of at least this many events at the limit, where fails are subject to
    Holm's correction.
    """

    gate: str
    verdict: GateVerdict
    observed: float | None
    n: int | None
    bound: float | None
    limit: float | None
    reason: str
    attempts: tuple[str, ...] = ()
    p_fail: float | None = None


@dataclass(frozen=True)
class Count:
    k: int
    n: int


@dataclass(frozen=True)
class Repeat:
    count: int
    samples: int
    mismatches: int


@dataclass(frozen=True)
class Reorder:
    """As variance.itself.Reordered; ``finding``: None where the order changed nothing."""

    finding: str | None
    k: int
    n: int
    again_k: int
    again_n: int


@dataclass(frozen=True)
class VsReference:
    """As variance.pair.Pair; ``elements_different`` is a share of all output elements."""

    n: int
    bit_exact: Rate
    elements_different: float | None
    max_lsb: int | None
    lsb_histogram: dict[str, int] | None
    mean_signed_lsb: float | None
    disagreement: Rate
    near_tie: Count | None


@dataclass(frozen=True)
class Cell:
    """``soak``: of a soak cell that ran; ``power``: the mode the device was in, where asked for."""

    cell: str
    condition: str
    status: str
    attempt: str | None
    error: str | None
    timing_valid: bool
    soak: Soak | None = None
    power: str | None = None


@dataclass(frozen=True)
class RowResult:
    id: str
    model: str
    file: str
    device: str
    device_class: str
    emulated: bool
    runtime: str
    inputs: str
    status: str
    verdict: Verdict
    reasons: tuple[str, ...]
    is_reference: bool
    reference: str | None
    attempts: tuple[str, ...]
    accuracy: Rate | None
    fp32: AgainstFp32 | None
    vs_reference: VsReference | None
    repeat: Repeat | None
    order: Reorder | None
    nonfinite: int | None
    gates: tuple[GateResult, ...]
    cells: tuple[Cell, ...]
    by_class: Standing | None = None


@dataclass(frozen=True)
class ClassResult:
    device_class: str
    emulated: bool
    verdict: Verdict
    reasons: tuple[str, ...]
    rows: tuple[str, ...]


@dataclass(frozen=True)
class PairResult:
    model: str
    file: str
    inputs: str
    a: str
    b: str
    n: int
    bit_exact_rate: float
    max_lsb: int | None
    lsb_histogram: dict[str, int] | None
    disagreement: Rate
    near_tie: Count | None
    attempts: tuple[str, ...]


@dataclass(frozen=True)
class FleetResult:
    model: str
    file: str
    inputs: str
    spread: Fleet
    worst_pair: PairResult | None
    attempts: tuple[str, ...]


@dataclass(frozen=True)
class SignOff:
    verdict: Verdict
    reasons: tuple[str, ...]
    policy: dict[str, str]
    classes: tuple[ClassResult, ...]
    rows: tuple[RowResult, ...]
    pairs: tuple[PairResult, ...]
    fleet: tuple[FleetResult, ...]

    @property
    def exit_code(self) -> Exit:
        return EXITS[self.verdict]

    @property
    def timed_out(self) -> bool:
        """Some row timed out, whatever decided the verdict."""
        return any(row.verdict == "timeout" for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data; a number that is unknown or not finite is None."""
        found = cast("dict[str, Any]", plain(dataclasses.asdict(self)))
        found["timed_out"] = self.timed_out
        for fleet in found["fleet"]:
            fleet.update(fleet.pop("spread"))
            pair = fleet["worst_pair"]
            fleet["worst_pair"] = pair and {k: pair[k] for k in ("a", "b", "disagreement")}
        for row in found["rows"]:
            for gate in row["gates"]:
                del gate["p_fail"]
        return found


def plain(value: Any) -> Any:
    """As JSON can hold it: tuples become lists, numbers that are not finite become None."""
    match value:
        case dict():
            return {k: plain(v) for k, v in value.items()}
        case list() | tuple():
            return [plain(v) for v in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


COVERAGE = (
    "planned",
    "ok",
    "model_error",
    "infra_error",
    "timeout",
    "cancelled",
    "not_available",
    "pending",
)
"""How a planned cell can stand, in the order in which reports list it."""
