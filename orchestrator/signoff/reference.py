"""Which row the others are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.matrix.policy import Candidate, Policy
from orchestrator.signoff.case import Case


@dataclass(frozen=True, eq=False)
class Choice:
    """``case`` is the reference, or None. ``passed_over``: why earlier candidates are not it."""

    case: Case | None
    passed_over: str


def choose(policy: Policy, rows: Sequence[Case], names: Sequence[Case]) -> Choice:
    """The first candidate of the policy that answered, among rows of one model file and input set.

    ``rows`` ran the same bytes and may serve; ``names`` also holds those that did not run, to say
    why a candidate was passed over. Where a pattern fits several rows, the first id in order wins.
    """
    if not policy.reference:
        return Choice(None, "the policy names no reference")
    skipped: list[str] = []
    for candidate in policy.reference:
        fitting = [case for case in names if _fits(candidate, case)]
        for case in fitting:
            trouble = _trouble(policy, candidate, case)
            if not trouble and case not in rows:
                trouble = "ran other bytes of the model file"
            if not trouble:
                return Choice(case, "; ".join(skipped))
            skipped.append(f"{case.id}: {trouble}")
    return Choice(None, "; ".join(skipped) or "no row fits the policy's reference candidates")


def _fits(candidate: Candidate, case: Case) -> bool:
    r = case.row
    return candidate.fits(r.model, r.file, r.device, r.device_class, r.runtime)


def _trouble(policy: Policy, candidate: Candidate, case: Case) -> str:
    if case.answers is None or case.clean is None:
        return case.problem
    if candidate.isa_any and not case.clean.isa.intersection(candidate.isa_any):
        return f"its device has none of {', '.join(candidate.isa_any)}"
    if case.row.emulated and not policy.accept_emulated:
        return "emulated, which the policy does not accept"
    return ""
