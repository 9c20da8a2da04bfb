"""The gates. Each: evidence in, GateResult out; the rule is in docs/guides/gates.md.

A statistical gate passes if the one-sided bound on the bad side meets the limit, fails if the
opposite bound violates it, and is inconclusive between.
"""

from __future__ import annotations

from orchestrator.matrix.policy import (
    Accuracy,
    Behaviour,
    Codes,
    Provenance,
    Reference,
    Repeatability,
)
from orchestrator.signoff.case import Baseline, Case
from orchestrator.signoff.result import GateResult, GateVerdict, Repeat
from orchestrator.variance.device import AgainstFp32
from orchestrator.variance.intervals import (
    lower_bound,
    p_above,
    samples_needed,
    tango_lower,
    tango_upper,
    upper_bound,
)
from orchestrator.variance.observation import Observation
from orchestrator.variance.pair import NEAR_TIE_LSB, Pair
from orchestrator.variance.repeatability import Repeated, repeated, unlike

Attempts = tuple[str, ...]

NAMES = {
    "G0": "provenance",
    "G2": "repeatability",
    "G3": "accuracy",
    "G5": "behaviour",
    "G6": "reference",
    "G6-near-tie": "near ties",
    "G7": "codes",
}
"""What each gate is about, as docs/guides/gates.md has it."""


def named(gate: str) -> str:
    """A gate as reasons have it: ``G3 accuracy``."""
    return f"{gate} {NAMES[gate]}"


def provenance(gate: Provenance, case: Case) -> GateResult:
    """G0 over all cells that ran."""
    ran = [c for c in case.cells if c.status == "ok"]
    attempts = tuple(c.attempt for c in ran if c.attempt)
    lines = [line for c in ran for line in c.fallbacks]
    unknown = [c.cell for c in ran if not c.planned_backend]

    def say(verdict: GateVerdict, observed: float | None, reason: str) -> GateResult:
        return GateResult(
            "G0", verdict, observed, len(ran), None, 0, f"{named('G0')}: {reason}", attempts
        )

    if lines:
        return say(
            "fail", len(lines), f"not the planned backend: {'; '.join(dict.fromkeys(lines))}"
        )
    if not ran:
        return say("inconclusive", None, "nothing ran")
    if unknown:
        return say("inconclusive", None, f"the backend of {unknown[0]} is not known")
    backends = ", ".join(sorted({c.planned_backend for c in ran}))
    return say("pass", 0, f"ran on the planned backend ({backends}) without fallback")


def repeatability(gate: Repeatability, case: Case) -> tuple[GateResult, Repeat | None]:
    """G2: one differing byte is a fault, whatever its rate.

    No differing byte passes only after the required repeats of the required samples in one cell.
    Heat and power change clocks, not integers, and the order of the samples is none of a sample's
    business: what differs from the clean cell under them is a fault as well.
    """
    cells = [(c, found) for c in case.cells if c.status == "ok" and (found := repeated(c))]
    bad = sum(found.mismatches for _, found in cells)
    compared = sum(found.compared for _, found in cells)
    best = max(
        (found for _, found in cells),
        key=lambda r: (_enough(gate, r), r.count * r.samples),
        default=None,
    )
    shown = Repeat(best.count, best.samples, bad) if best else None
    faults = [f"{bad} of {compared} repeated outputs differ from the first pass"] if bad else []
    held = compared  # outputs that were held against another of the same sample
    states = [c for c in case.cells if c.status == "ok" and _of_state(c)] if case.clean else []
    for c in states:
        apart = unlike(c, case.clean) if case.clean else None
        held += apart.n if apart else 0
        if apart and apart.k:
            bad += apart.k
            head = "order dependence: " if c.order else ""
            faults.append(
                f"{head}{apart.k} of {apart.n} outputs under {c.row.condition} differ from the"
                " clean ones"
            )
        held += c.order is not None
        if c.order and not c.order.same:
            bad += 1
            faults.append(
                f"state carry-over: sample {c.order.sample} gave other bytes again at the end of"
                f" {c.row.condition}, unless the unit does not repeat itself"
            )
    clean = case.clean_attempts if states else ()
    attempts = tuple(
        dict.fromkeys([*(c.attempt for c in [*dict(cells), *states] if c.attempt), *clean])
    )
    asked = f"{gate.min_repeats} repeats of {gate.min_samples} samples"

    def say(verdict: GateVerdict, reason: str) -> tuple[GateResult, Repeat | None]:
        observed = bad if best or faults else None
        return GateResult(
            "G2", verdict, observed, held, None, 0, f"{named('G2')}: {reason}", attempts
        ), shown

    if faults:
        return say("fail", "; ".join(faults))
    if best is None:
        return say("inconclusive", f"no repeats; needs {asked}")
    done = f"{best.count} repeats of {best.samples} samples"
    if _enough(gate, best):
        return say("pass", f"no differing byte in {done}")
    return say("inconclusive", f"no differing byte, but only {done}; needs {asked}")


def _enough(gate: Repeatability, found: Repeated) -> bool:
    return found.count >= gate.min_repeats and found.samples >= gate.min_samples


def _of_state(cell: Observation) -> bool:
    """Whether it ran the clean cell's samples in another order or on a device in another state."""
    return cell.soak is not None or cell.power is not None or cell.order is not None


def accuracy(
    gate: Accuracy, found: AgainstFp32, n: int, confidence: float, attempts: Attempts
) -> GateResult:
    """G3: 1 + difference / FP32 accuracy against ``min_ratio``.

    The difference is bounded by Tango's paired score bound. FP32 accuracy is plugged in as
    observed: its own error moves the ratio's bound by the bound's distance from 1 times that
    relative error, an order below the bound itself at the accuracies of shipped models.
    """
    if found.accuracy is None or found.c_to_i is None or found.i_to_c is None:
        return missing("G3", "no labels", gate.min_ratio)
    base = found.accuracy.rate
    if not base:
        return missing("G3", "the FP32 parent is right on no sample", gate.min_ratio)
    gained, lost = found.i_to_c, found.c_to_i
    low = 1 + tango_lower(gained, lost, n, confidence) / base
    high = 1 + tango_upper(gained, lost, n, confidence) / base
    observed = 1 + (gained - lost) / n / base
    verdict: GateVerdict
    if low >= gate.min_ratio:
        verdict, bound, relation = "pass", low, "at or above"
    elif high < gate.min_ratio:
        verdict, bound, relation = "fail", high, "below"
    else:
        verdict, bound, relation = "inconclusive", low, "below"
    side = "upper" if verdict == "fail" else "lower"
    reason = (
        f"{named('G3')}: {pct(observed)} of FP32's ({gained} gained, {lost} lost of {n}); "
        f"{side} {pct(confidence)} bound {pct(bound)} is {relation} {pct(gate.min_ratio)}"
    )
    return GateResult("G3", verdict, observed, n, bound, gate.min_ratio, reason, attempts)


def behaviour(
    gate: Behaviour, found: AgainstFp32, confidence: float, attempts: Attempts
) -> GateResult:
    """G5. McNemar's p is in the row's numbers; it decides nothing."""
    d = found.disagreement
    what = "samples are decided differently than by FP32"
    return at_most("G5", d.k, d.n, gate.max_disagreement, confidence, what, attempts)


def reference(
    gate: Reference, pair: Pair, confidence: float, attempts: Attempts
) -> list[GateResult]:
    """G6 and, where the policy sets ``min_near_tie``, "G6-near-tie" on the disagreeing samples."""
    what = "samples are decided differently than by the reference"
    k = pair.disagreement
    found = [at_most("G6", k, pair.n, gate.max_disagreement, confidence, what, attempts)]
    if gate.min_near_tie is None:
        return found
    name, limit = "G6-near-tie", 1 - gate.min_near_tie
    if not k:
        found.append(not_applicable(name, "no sample is decided differently", limit))
    elif pair.near_tie is None:
        found.append(missing(name, "margins are unknown: no lattice", limit))
    else:
        what = f"of those have a top margin of {NEAR_TIE_LSB} LSB or more"
        found.append(at_most(name, k - pair.near_tie, k, limit, confidence, what, attempts))
    return found


def lsb(gate: Codes, pair: Pair, confidence: float, attempts: Attempts) -> GateResult:
    """G7. Floats off any lattice have no LSB; a lattice left by one side only is no excuse."""
    over = pair.over(gate.max_lsb)
    if pair.lattice_differs:
        why = "an output lies on a lattice on one side only, or on another one: float computation?"
        return missing("G7", why, gate.max_share)
    if over is None:
        return not_applicable("G7", "float outputs off any lattice have no LSB", gate.max_share)
    what = f"samples differ from the reference by more than {gate.max_lsb} LSB"
    if pair.max_lsb is not None:
        what += f" (largest {pair.max_lsb})"
    return at_most("G7", over, pair.n, gate.max_share, confidence, what, attempts)


def at_most(
    gate: str, k: int, n: int, limit: float, confidence: float, what: str, attempts: Attempts
) -> GateResult:
    """A rate that must not exceed ``limit``, decided by Clopper-Pearson bounds."""
    low, high = lower_bound(k, n, confidence), upper_bound(k, n, confidence)
    head = f"{named(gate)}: {k} of {n} {what}"
    verdict: GateVerdict
    if high <= limit:
        verdict, bound = "pass", high
        tail = f"upper {pct(confidence)} bound {pct(high)} is within {pct(limit)}"
    elif low > limit:
        verdict, bound = "fail", low
        tail = f"lower {pct(confidence)} bound {pct(low)} exceeds {pct(limit)}"
    else:
        verdict, bound = "inconclusive", high
        tail = f"upper {pct(confidence)} bound {pct(high)} exceeds {pct(limit)}"
        if limit == 0:
            tail += ", which no finite sample can meet"
        elif n < (needed := samples_needed(limit, confidence)):
            tail += f"; even without events that takes {needed} samples"
    return GateResult(
        gate,
        verdict,
        k / n if n else None,
        n,
        bound,
        limit,
        f"{head}; {tail}",
        attempts,
        p_above(k, n, limit),
    )


def missing(gate: str, why: str, limit: float | None) -> GateResult:
    """Evidence that an enabled gate asks for is not there: inconclusive, never a pass."""
    return GateResult(gate, "inconclusive", None, 0, None, limit, f"{named(gate)}: {why}")


def not_applicable(gate: str, why: str, limit: float | None = None) -> GateResult:
    return GateResult(gate, "not_applicable", None, None, None, limit, f"{named(gate)}: {why}")


def attempts_of(case: Case, other: Case | Baseline) -> Attempts:
    """Everything that a comparison of the two rests on."""
    more = other.attempts if isinstance(other, Baseline) else other.clean_attempts
    return tuple(dict.fromkeys((*case.clean_attempts, *more)))


def pct(share: float) -> str:
    return f"{100 * share:.3g} %" if abs(share) < 0.1 else f"{100 * share:.4g} %"
