"""Policy + observations → verdicts. Pure: the order of the evidence changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.conditions import parse
from orchestrator.matrix.by_class import ByClass
from orchestrator.matrix.policy import GATES, Policy
from orchestrator.signoff import gates, tables
from orchestrator.signoff.case import Baseline, Case, Group, baseline, cases
from orchestrator.signoff.reference import Choice, choose
from orchestrator.signoff.refused import first_the_devices
from orchestrator.signoff.result import (
    PRECEDENCE,
    Cell,
    ClassResult,
    FleetResult,
    GateResult,
    PairResult,
    Reorder,
    Repeat,
    RowResult,
    SignOff,
    Verdict,
    VsReference,
    worst,
)
from orchestrator.signoff.standing import Standing, covered, standings
from orchestrator.variance import device
from orchestrator.variance.device import AgainstFp32
from orchestrator.variance.intervals import holm
from orchestrator.variance.observation import Observation, Truth
from orchestrator.variance.repeatability import reordered
from orchestrator.variance.tasks import TaskError

# Display intervals are two-sided 95 % whatever confidence a policy gates with.
DISPLAY = 0.95
PAIR_GATES = ("G6", "G7")
BY_CODES = ("G3", "G5", "G6", "G7")
"""Gates that need all answers: those of its representative, where a row is covered."""

OF_STATUS: dict[str, Verdict] = {
    "model_error": "fail",
    "infra_error": "error",
    "timeout": "timeout",
    "cancelled": "inconclusive",
    "pending": "inconclusive",
    "not_available": "inconclusive",
    "ok": "pass",
}
MEANING = {
    "model_error": "the model cannot run there",
    "infra_error": "infrastructure failed, which says nothing about the model",
    "timeout": "timed out",
    "cancelled": "cancelled: not covered",
    "pending": "not run yet: not covered",
    "not_available": "not available on this device: not covered",
}


@dataclass(frozen=True, eq=False)
class _Evidence:
    case: Case
    choice: Choice
    fp32: AgainstFp32 | None
    versus: VsReference | None
    repeat: Repeat | None
    order: Reorder | None
    gates: list[GateResult]
    standing: Standing | None = None

    @property
    def covered_by(self) -> str | None:
        """ID of the row that stands for this one."""
        told = self.standing
        return told.by if told and told.standing == "covered" else None


def judge(
    policy: Policy,
    observations: Sequence[Observation],
    truths: Mapping[tuple[str, str], Truth],
    by_class: ByClass | None = None,
) -> SignOff:
    """Every row against FP32 and its reference, then device classes, then the whole.

    ``truths`` maps (model, inputs) to what is known of it; ``by_class``: how the run was divided,
    where rows stand for others. Raises ValueError or KeyError for
    observations that contradict each other or have no truth: the caller's mistakes, not the user's.
    """
    observations = first_the_devices(observations)
    all_cases = cases(observations, truths)
    baselines = {key: baseline(truth) for key, truth in truths.items()}
    compare = tables.comparer()
    groups: dict[Group, list[Case]] = defaultdict(list)
    named: dict[tuple[str, ...], list[Case]] = defaultdict(list)
    for case in all_cases:
        groups[case.group].append(case)
        named[case.group[:3]].append(case)
    stand = standings(by_class, observations, all_cases)
    choices = {key: choose(policy, rows, named[key[:3]]) for key, rows in groups.items()}
    evidence = [
        _weigh(
            policy,
            case,
            choices[case.group],
            baselines[(case.row.model, case.row.inputs)],
            compare,
            stand.get(case.id),
        )
        for case in all_cases
    ]
    _correct_for_many_pairs(policy, evidence)
    own = {e.case.id: _row(policy, e) for e in evidence if e.covered_by is None}
    rows = tuple(
        _row(policy, e, own[e.covered_by]) if e.covered_by else own[e.case.id] for e in evidence
    )
    pairs: list[PairResult] = []
    fleet: list[FleetResult] = []
    for _, members in sorted(groups.items()):
        found, spread = tables.table(members, compare, DISPLAY)
        pairs += found
        fleet += [spread] if spread else []
    classes = _classes(rows)
    return SignOff(
        verdict=worst(c.verdict for c in classes),
        reasons=_reasons(policy, classes, rows),
        policy={"name": policy.name, "sha256": policy.sha256()},
        classes=classes,
        rows=rows,
        pairs=tuple(pairs),
        fleet=tuple(fleet),
    )


def _weigh(
    policy: Policy,
    case: Case,
    choice: Choice,
    base: Baseline,
    compare: tables.Compare,
    standing: Standing | None,
) -> _Evidence:
    g, confidence = policy.gates, policy.confidence
    found = {"G0": [gates.provenance(g.G0, case)]}
    repeat_gate, repeat = gates.repeatability(g.G2, case)
    found["G2"] = [repeat_gate]
    fp32, problem = _against_fp32(case, base)
    if fp32 is None:
        found["G3"] = [gates.missing("G3", problem, g.G3.min_ratio)]
        found["G5"] = [gates.missing("G5", problem, g.G5.max_disagreement)]
    else:
        attempts = gates.attempts_of(case, base)
        n = fp32.disagreement.n
        found["G3"] = [gates.accuracy(g.G3, fp32, n, confidence, attempts)]
        found["G5"] = [gates.behaviour(g.G5, fp32, confidence, attempts)]
    versus, more = _against_reference(policy, case, choice, compare)
    found |= more
    if standing and standing.standing == "covered":
        for name in BY_CODES:
            found[name] = [gates.not_applicable(name, f"{standing.by} stands for it")]
    results: list[GateResult] = []
    for name in GATES:
        if getattr(g, name).enabled:
            results += found[name]
        else:
            results.append(gates.not_applicable(name, "switched off by the policy"))
    return _Evidence(case, choice, fp32, versus, repeat, _order(case), results, standing)


def _order(case: Case) -> Reorder | None:
    found = reordered(case.cells, case.clean)
    return Reorder(found.finding, **vars(found)) if found else None


def _against_fp32(case: Case, base: Baseline) -> tuple[AgainstFp32 | None, str]:
    if case.answers is None:
        return None, case.problem
    if base.answers is None:
        return None, base.problem
    try:
        return device.against_fp32(case.answers, base.answers, DISPLAY), ""
    except TaskError as error:
        return None, f"cannot be compared with its FP32 parent: {error.what}"


def _against_reference(
    policy: Policy, case: Case, choice: Choice, compare: tables.Compare
) -> tuple[VsReference | None, dict[str, list[GateResult]]]:
    g = policy.gates
    limits = {"G6": g.G6.max_disagreement, "G7": g.G7.max_share}
    if choice.case is case:
        why = "it is the reference"
        return None, {name: [gates.not_applicable(name, why, x)] for name, x in limits.items()}
    if case.answers is None:
        why = case.problem
    elif choice.case is None or choice.case.answers is None:
        why = f"no reference ({choice.passed_over})"
    else:
        try:
            pair = compare(case.answers, choice.case.answers)
        except TaskError as error:
            why = f"cannot be compared with {choice.case.id}: {error.what}"
        else:
            attempts = gates.attempts_of(case, choice.case)
            return tables.vs_reference(pair, DISPLAY), {
                "G6": gates.reference(g.G6, pair, policy.confidence, attempts),
                "G7": [gates.lsb(g.G7, pair, policy.confidence, attempts)],
            }
    return None, {name: [gates.missing(name, why, x)] for name, x in limits.items()}


def _correct_for_many_pairs(policy: Policy, evidence: list[_Evidence]) -> None:
    """Holm over all rows gated against a reference: with many pairs one fails by chance."""
    for name in PAIR_GATES:
        where = [
            (e, i, p)
            for e in evidence
            for i, gate in enumerate(e.gates)
            if gate.gate == name and (p := gate.p_fail) is not None
        ]
        adjusted = holm([p for _, _, p in where])
        for (e, i, _), p in zip(where, adjusted, strict=True):
            gate = e.gates[i]
            if gate.verdict == "fail" and p >= 1 - policy.confidence:
                reason = f"{gate.reason}, but not after Holm's correction for {len(where)} rows"
                e.gates[i] = replace(gate, verdict="inconclusive", reason=reason)


def _row(policy: Policy, e: _Evidence, stands_for_it: RowResult | None = None) -> RowResult:
    case, r = e.case, e.case.row
    verdict, reasons = _verdict(policy, e, stands_for_it)
    answers = case.answers
    return RowResult(
        id=case.id,
        model=r.model,
        file=r.file,
        device=r.device,
        device_class=r.device_class,
        emulated=r.emulated,
        runtime=r.runtime,
        inputs=r.inputs,
        status=case.status,
        verdict=verdict,
        reasons=tuple(reasons),
        is_reference=e.choice.case is case,
        reference=e.choice.case.id if e.choice.case else None,
        attempts=case.attempts,
        accuracy=device.accuracy(answers, DISPLAY) if answers else None,
        fp32=e.fp32,
        vs_reference=e.versus,
        repeat=e.repeat,
        order=e.order,
        nonfinite=answers.nonfinite if answers else None,
        gates=tuple(e.gates),
        cells=tuple(
            Cell(
                c.cell,
                c.row.condition,
                c.status,
                c.attempt,
                c.error,
                c.timing_valid,
                c.soak,
                c.power,
            )
            for c in case.cells
        ),
        by_class=e.standing,
    )


def _verdict(
    policy: Policy, e: _Evidence, stands_for_it: RowResult | None
) -> tuple[Verdict, list[str]]:
    case = e.case
    reasons = [
        f"{c.row.condition}: {MEANING[c.status]}" + (f" ({c.error})" if c.error else "")
        for c in case.cells
        if c.status != "ok"
    ]
    verdicts: list[Verdict] = [OF_STATUS[c.status] for c in case.cells]
    for c in case.cells:
        if c.status == "ok" and (missed := _missed(c)):
            verdicts.append("inconclusive")
            reasons.append(f"{c.row.condition}: {missed}")
    decided = [g for g in e.gates if g.verdict != "not_applicable"]
    verdicts += [g.verdict for g in decided if g.verdict != "not_applicable"]
    shown = ["fail"]
    if case.status == "ok" or case.answers is not None:
        shown.append("inconclusive")  # otherwise these only repeat that there is no output
    reasons += [g.reason for v in shown for g in decided if g.verdict == v]
    if case.answers and case.answers.nonfinite:
        count, n = case.answers.nonfinite, case.answers.n
        verdicts.append("inconclusive")  # an answer, and never one that a pass rests on
        reasons.append(f"NaN or infinity in the outputs for {count} of {n} samples")
    if stands_for_it and e.standing:
        accepted = policy.accept_covered_by_class
        verdicts.append(stands_for_it.verdict if accepted else "covered-by-class")
        reasons.append(covered(e.standing, stands_for_it.verdict))
    elif not decided:
        verdicts.append("inconclusive")
        reasons.append("the policy gates nothing that applies to it")
    if case.row.emulated and not policy.accept_emulated:
        verdicts.append("inconclusive")
        reasons.append("emulated, which the policy does not accept: it covers nothing")
    return worst(verdicts), reasons


def _missed(cell: Observation) -> str | None:
    """Why an ok cell was not in the state that its condition asks for, or None."""
    shown = parse(cell.row.condition).recorded
    if shown and getattr(cell, shown[0]) is None:
        return shown[1]
    if cell.soak is None or cell.soak.reached:
        return None
    if cell.soak.max_c is None:
        return "soak target not reached: temperature unknown"
    return (
        f"soak target not reached: {cell.soak.max_c:g} °C of {cell.soak.target_c:g} °C "
        f"in {cell.soak.heat_s:.0f} s"
    )


def _classes(rows: Sequence[RowResult]) -> tuple[ClassResult, ...]:
    """Emulated and real units of one name stay apart: neither covers the other."""
    members: dict[tuple[str, bool], list[RowResult]] = defaultdict(list)
    for row in rows:
        members[(row.device_class, row.emulated)].append(row)
    found = []
    for (name, emulated), group in sorted(members.items()):
        verdict = worst(row.verdict for row in group)
        reasons = [
            f"{row.id}: {row.verdict}: {_first(row.reasons)}"
            for row in sorted(
                group, key=lambda row: (row.verdict != verdict, -len(row.reasons), row.id)
            )
            if row.verdict != "pass"
        ]
        if verdict == "pass":
            reasons = [f"{_rows(len(group))} passed every gate that applies"]
        ids = tuple(row.id for row in group)
        found.append(ClassResult(name, emulated, verdict, tuple(reasons), ids))
    return tuple(found)


def _first(reasons: Sequence[str]) -> str:
    """The rows hold every reason; a class and the whole name one and count the others."""
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return reasons[0] + more


def _reasons(
    policy: Policy, classes: Sequence[ClassResult], rows: Sequence[RowResult]
) -> tuple[str, ...]:
    reasons = []
    emulated = sorted({row.device for row in rows if row.emulated})
    if emulated and policy.accept_emulated:
        reasons.append(f"includes emulated devices: {', '.join(emulated)}")
    if not rows:
        reasons.append("nothing was observed")
    overall = worst(c.verdict for c in classes)
    by_id = {row.id: row for row in rows}
    for c in sorted(classes, key=lambda c: (c.verdict != overall, c.device_class, c.emulated)):
        counted = ""
        if c.verdict != "pass":
            counted = f"{_counted(c.verdict, [by_id[id] for id in c.rows])}: "
        reasons.append(f"{c.device_class}: {c.verdict}: {counted}{c.reasons[0]}")
    return tuple(reasons)


def _counted(verdict: Verdict, rows: Sequence[RowResult]) -> str:
    """How many rows have the verdict of their class, and in brackets what became of the others.

    As in ``7 of 10 rows (2 inconclusive, 1 not available)``.
    """
    own = [row for row in rows if row.verdict == verdict]
    absent = sum(map(_absent, own))
    text = f"{len(own)} of {_rows(len(rows))}"
    if absent:
        text += ", not available" if absent == len(own) else f", {absent} of them not available"
    others = Counter(
        "not available" if _absent(row) else row.verdict for row in rows if row.verdict != verdict
    )
    told = [f"{others[word]} {word}" for word in (*PRECEDENCE, "not available") if others[word]]
    return f"{text} ({', '.join(told)})" if told else text


def _absent(row: RowResult) -> bool:
    """Whether the device does not offer what the row asks for, in any condition."""
    return all(cell.status == "not_available" for cell in row.cells)


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"
