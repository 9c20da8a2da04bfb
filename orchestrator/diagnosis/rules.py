"""From evidence to a mechanism: rules in the order of how directly each is shown.

Sources: the causes and probes collected in docs/guides/attribution.md. The first rule that applies
answers. A rule that only fits says so ("possible"), and where none does the answer is "unknown".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from orchestrator.conditions import parse
from orchestrator.diagnosis.evidence import Attribution, Confidence, Evidence, Mechanism, Side
from orchestrator.variance.intervals import lower_bound
from orchestrator.variance.repeatability import Finding

Rule = Callable[[Evidence], Attribution | None]

SYSTEMS = ("system", "build")
"""What may differ between two units of a class: kernel, C library; another build of a runtime."""
ENGINES = frozenset({"runtime", "version"})
MOVES = frozenset(
    (
        *("Transpose", "Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze", "Cast"),
        *("QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput"),
    )
)
SHOWN = 5
"""Operator families that are named before the rest is only counted."""
ORDERS: dict[Finding, str] = {
    "state carry-over": "reset the model's state between samples",
    "order dependence": "give it one sample at a time, and look at what its runtime keeps of them",
}
"""What another order can bring to light -> what helps."""
GROSS = 0.1
"""A unit that loses more than this share of the answers another one has right computes wrong."""


def attribute(evidence: Evidence) -> Attribution:
    """The mechanism behind a pair's difference. Never raises; "unknown" is an answer."""
    for rule in RULES:
        found = rule(evidence)
        if found is not None:
            return found
    why = "no rule fits what is known of this pair"
    fix = "assay layers finds the operator, assay fingerprint what each device computes"
    return _say(evidence, Mechanism.UNKNOWN, "possible", why, fix=fix)


def arithmetics(evidence: Evidence) -> dict[str, tuple[str, str]]:
    """Operator families that matter to the file and are computed differently: family -> (a, b)."""
    a, b = evidence.a.arithmetic, evidence.b.arithmetic
    matters = evidence.families
    return {
        family: (a[family], b[family])
        for family in sorted({*a} & {*b})
        if a[family] != b[family] and (matters is None or family in matters)
    }


def decode(e: Evidence) -> Attribution | None:
    if e.a.inputs == e.b.inputs:
        return None
    why = "the two were not fed the same bytes: the hashes of their inputs differ"
    return _say(e, Mechanism.DECODE, "certain", why, fix="feed both the same tensors")


def identical(e: Evidence) -> Attribution | None:
    if not e.signature.identical:
        return None
    same = [f"all {e.signature.pair.n} samples are equal bit for bit"]
    if told := _modes(e):
        same.append(f"although the probes tell the two apart: {'; '.join(told)}")
        same += _why_not(e)
    return _say(e, Mechanism.IDENTICAL, "certain", *same)


def unrepeatable(e: Evidence) -> Attribution | None:
    side = max((e.a, e.b), key=lambda s: s.mismatches)
    if not side.mismatches:
        return None
    why = f"{side.row} differs from itself in {side.mismatches} of {side.repeated} repeats"
    if side.accelerated:
        fix = "pin the engine or the delegate, and compare several builds of it"
        return _say(e, Mechanism.NONDETERMINISM, "certain", why, side=side, fix=fix)
    if "threads" in (e.changed or ()) and side.factors.get("threads") not in (None, "1"):
        fix = "run it on one thread"
        return _say(e, Mechanism.NONDETERMINISM, "likely", why, side=side, fix=fix)
    other = e.b if side is e.a else e.a
    if not e.two_units or other.mismatches:
        fix = (
            "run it with repeats on another unit: only if that one repeats itself is this at fault"
        )
        return _say(e, Mechanism.NONDETERMINISM, "likely", why, side=side, fix=fix)
    because, confidence = [why], _of_repeats(other)
    if other.repeated:
        because.append(f"{other.row} does not, in {other.repeated}")
    fix = "take the unit out of the farm: a CPU repeats itself bit for bit"
    return _say(e, Mechanism.FAULT, confidence, *because, side=side, fix=fix)


def _of_repeats(other: Side) -> Confidence:
    """How surely a unit is at fault that does not repeat itself, beside one that may."""
    return "certain" if other.repeated else "likely"


def unordered(e: Evidence) -> Attribution | None:
    """A side whose answers hang on the order of the samples: named as everywhere else."""
    asked = [(s, s.order) for s in (e.b, e.a) if s.order is not None]
    worst = {order.finding: (s, order) for s, order in sorted(asked, key=lambda x: x[1].k)}
    for finding, fix in ORDERS.items():
        if finding not in worst:
            continue
        side, order = worst[finding]
        because = []
        if order.k:
            moved = f"{order.k} of {order.n} samples"
            because.append(f"{side.row} answers {moved} differently when their order is another")
        if order.again_k:
            again = f"{order.again_k} of {order.again_n} samples"
            because.append(
                f"{side.row} answers {again} differently when run again after the others"
            )
        # The few samples that are run again may be ones that carried state does not change.
        confidence: Confidence = "certain" if order.again_k else "likely"
        return _say(e, Mechanism(finding), confidence, *because, side=side, fix=fix)
    return None


def reordered(e: Evidence) -> Attribution | None:
    if not e.signature.rows:
        return None
    why = "both gave the same outputs, in another order of the samples"
    return _say(e, Mechanism.ORDER, "certain", why, fix="keep samples and answers together by ID")


def swapped(e: Evidence) -> Attribution | None:
    columns = e.signature.columns
    if columns is None:
        return None
    moved = [f"{i}←{j}" for i, j in enumerate(columns) if i != j]
    shown = ", ".join(moved[:8]) + (", …" if len(moved) > 8 else "")
    why = f"{len(moved)} output columns are swapped: {shown}"
    return _say(e, Mechanism.LAYOUT, "likely", why, fix="compare the label files and layouts")


def hot(e: Evidence) -> Attribution | None:
    if e.changed != ("condition",):
        return None
    conditions = [str(side.factors.get("condition")) for side in (e.a, e.b)]
    told = " / ".join(conditions)
    if any(parse(c).order is not None for c in conditions):
        why = f"only the order of the samples changed ({told})"
        return _say(e, Mechanism.ORDER, "likely", why, fix=ORDERS["order dependence"])
    why = f"only the device's state changed ({told}), which leaves integers as they are"
    fix = "run the same on another unit: if that one keeps its bytes, take this one out of the farm"
    return _say(e, Mechanism.FAULT, "likely", why, fix=fix)


def carried(e: Evidence) -> Attribution | None:
    """One side kept the state that the samples before left, as it was told to."""
    if "reset" not in (e.changed or ()):
        return None
    kept = e.a if e.a.factors.get("reset") == "off" else e.b
    because = [f"{kept.row} does not reset the model's state between samples, the other does"]
    others = [name for name in e.changed or () if name != "reset"]
    if others:
        because.append(f"beside it they differ in: {', '.join(others)}")
    fix = "compare rows that reset alike: with reset off an answer depends on the samples before"
    confidence: Confidence = "possible" if others else "likely"
    return _say(e, Mechanism.STATE, confidence, *because, fix=fix)


def itself(e: Evidence) -> Attribution | None:
    """The same unit, asked twice in the same way."""
    if e.changed != ():
        return None
    why = "nothing that is known of the two differs, not even the unit"
    fix = "run it with repeats on this unit and on another one: does the answer repeat there?"
    return _say(e, Mechanism.NONDETERMINISM, "possible", why, fix=fix)


def elsewhere(e: Evidence) -> Attribution | None:
    lines = [f"{s.row}: {line}" for s in (e.a, e.b) for line in s.fallbacks]
    if set(e.a.fallbacks) == set(e.b.fallbacks):
        return None
    return _say(
        e,
        Mechanism.FLOAT,
        "likely",
        *(f"not all ran where it was planned: {line}" for line in lines),
        side=e.a if e.a.fallbacks else e.b,
        fix="pin the delegate or the provider, and refuse its fallback (gate G0)",
    )


def lone_unit(e: Evidence) -> Attribution | None:
    same_system = all(e.a.factors.get(k) == e.b.factors.get(k) for k in SYSTEMS)
    if e.changed != ("unit",) or not same_system:
        return None
    what = "nothing that is known of the two differs but the unit"
    side, shown = _worse(e)
    return _say(
        e,
        Mechanism.FAULT,
        "likely",
        what,
        *shown,
        side=side,
        fix="run it again on the unit, with repeats; then take it out of the farm",
    )


def computing(operators: Mapping[str, int]) -> dict[str, int]:
    """Layers of the plans that change values, by kind.

    How tensors are laid out and handed on differs between instruction sets without changing a bit.
    """
    found: Counter[str] = Counter()
    for kind, count in operators.items():
        name = kind.rpartition(".")[2].removeprefix("Fused")
        if name not in MOVES:
            found[name] += count
    return dict(found)


def plan(e: Evidence) -> Attribution | None:
    a, b = computing(e.a.operators), computing(e.b.operators)
    apart = {k: (a.get(k, 0), b.get(k, 0)) for k in sorted({*a, *b}) if a.get(k, 0) != b.get(k, 0)}
    known = bool(a and b and apart)
    if e.plan_matters is False or not (known or e.plan_matters):
        return None
    because = []
    if known:
        counts = ", ".join(f"{kind} {x}/{y}" for kind, (x, y) in apart.items())
        because.append(f"the optimised graphs compute other operators (a/b): {counts}")
    if e.plan_matters:
        because.append(
            f"{e.b.row} answers differently under the plan of {e.a.row} than under its own"
        )
    if e.saturable and e.a.pair_sums != e.b.pair_sums:
        because.append("its products can saturate on one of the two as well")
    fix = "quantise so that both compute in integers (residual sums too), or pin one graph"
    return _say(e, Mechanism.PLAN, "certain" if e.plan_matters else "likely", *because, fix=fix)


def saturation(e: Evidence) -> Attribution | None:
    side = next((s for s in (e.a, e.b) if s.pair_sums), None)
    other = e.b if side is e.a else e.a
    if side is None or other.pair_sums or not e.saturable:
        return None
    because = [
        f"{side.row} adds pairs of byte products in int16 (x86 without VNNI), the other does not",
        f"{e.saturable} products of the file can leave int16 there",
    ]
    apart = arithmetics(e)
    shown = [family for family, modes in apart.items() if any("sat" in mode for mode in modes)]
    if shown:
        because.append(f"its probes saturate: {', '.join(shown)}")
    fix = (
        "quantise with reduce_range or U8U8, or set session.x64quantprecision=1;"
        " VNNI and ARM are not affected"
    )
    confidence: Confidence = "certain" if shown or _steps(e) > 1 else "likely"
    return _say(e, Mechanism.SATURATION, confidence, *because, side=side, fix=fix)


def wrong(e: Evidence) -> Attribution | None:
    """A unit that gives answers no arithmetic explains."""
    finite = e.signature.nonfinite
    if min(finite) == 0 and max(finite) > 0:
        side = e.a if finite[0] else e.b
        why = f"{side.row} puts out NaN or infinity for {max(finite)} samples, the other for none"
        return _say(e, Mechanism.FAULT, "likely", why, side=side, fix="look at its first bad layer")
    named = [
        (side, family)
        for side, at in ((e.a, 0), (e.b, 1))
        for family, modes in arithmetics(e).items()
        if modes[at].startswith("unmatched") and not modes[1 - at].startswith("unmatched")
    ]
    worse, shown = _worse(e)
    if worse is None:
        return None
    families = sorted({family for s, family in named if s is worse})
    if families:
        shown = (*shown, f"no arithmetic known gives its probes' answers: {', '.join(families)}")
    confidence: Confidence = "certain" if families else "likely"
    fix = "do not ship on it; a newer build of the runtime, or another kernel set, may be right"
    return _say(e, Mechanism.FAULT, confidence, *shown, side=worse, fix=fix)


def float_computed(e: Evidence) -> Attribution | None:
    if not e.signature.pair.lattice_differs:
        return None
    why = "one side's output lies on its lattice of integers, the other's does not"
    return _say(e, Mechanism.FLOAT, "likely", why, fix="pin the delegate or the provider")


def version(e: Evidence) -> Attribution | None:
    names = set(e.changed or ())
    if not names & ENGINES:
        return None
    both = ("runtime", "version", "build") if "runtime" in names else ("version", "build")
    told = [f"{e.a.factors[k]} / {e.b.factors[k]}" for k in both if k in e.a.factors]
    because = [f"another {' and '.join(sorted(names & ENGINES))}: {', '.join(told)}", *_modes(e)]
    fix = "pin the version that was signed off, and audit another one as a row of its own"
    # Another runtime often has another Python and NumPy around it, which compute nothing here.
    confidence: Confidence = "likely" if names <= ENGINES | {"system"} else "possible"
    return _say(e, Mechanism.KERNEL, confidence, *because, fix=fix)


def rounding(e: Evidence) -> Attribution | None:
    modes = _modes(e)
    if _steps(e) > 1 or not (modes or _steps(e) or e.signature.small):
        return None
    if modes:
        because = modes
    elif e.signature.ones is None:
        because = [f"floats differ by {e.signature.relative:.1e} of the largest at most"]
    else:
        total = (e.signature.up or 0) + (e.signature.down or 0)
        because = [f"{e.signature.ones} of {total} differing codes differ by one step"]
    confidence: Confidence = "likely" if modes or _steps(e) else "possible"
    fix = "nothing is broken: gate on decisions, or use the kernels that round alike on both"
    if e.changed == ("threads",):
        because.append("only the number of threads changed: sums are added up in another order")
    return _say(e, Mechanism.ROUNDING, confidence, *because, fix=fix)


RULES: tuple[Rule, ...] = (
    decode,
    unrepeatable,
    unordered,
    identical,
    reordered,
    swapped,
    hot,
    elsewhere,
    itself,
    lone_unit,
    plan,
    saturation,
    carried,
    wrong,
    float_computed,
    version,
    rounding,
)


def _steps(e: Evidence) -> int:
    """Of the operators that differ on equal inputs, how far the furthest is off; 0: none is known.

    Rounding differently moves a result by one step.
    """
    return max((g.max_lsb or 0 for g in e.guilty), default=0)


def _modes(e: Evidence) -> list[str]:
    told = [f"probes of {family}: {a} / {b}" for family, (a, b) in arithmetics(e).items()]
    more = len(told) - SHOWN
    return told if more < 2 else [*told[:SHOWN], f"and probes of {more} other families"]


def _why_not(e: Evidence) -> list[str]:
    """Why the probes that differ do not show in this file's answers."""
    families: dict[str, list[str]] = {}
    unseen = f"none of the {e.signature.pair.elements} elements put out shows it"
    for family in arithmetics(e):
        families.setdefault(e.unreached.get(family, unseen), []).append(family)
    return [f"{', '.join(named)}: {why}" for why, named in families.items()]


def _worse(e: Evidence) -> tuple[Side | None, tuple[str, ...]]:
    """The side that is grossly wrong where the other is right, and how that shows."""
    lost, gained, right = e.signature.lost, e.signature.gained, e.signature.right
    if lost is None or gained is None or right is None:
        return None, ()
    n = e.signature.pair.n
    for side, k, have in ((e.b, lost, right[0]), (e.a, gained, right[1])):
        if have and lower_bound(k, have) > GROSS:
            better = e.a if side is e.b else e.b
            why = (
                f"{side.row} is wrong on {k} of the {have} samples (n = {n}) {better.row} has right"
            )
            return side, (why,)
    return None, ()


def _say(
    e: Evidence,
    mechanism: Mechanism,
    confidence: Confidence,
    *because: str,
    side: Side | None = None,
    fix: str | None = None,
) -> Attribution:
    if e.guilty:
        because = (*because, f"differ on equal inputs: {'; '.join(map(str, e.guilty))}")
    return Attribution(mechanism, e.changed, confidence, because, side.row if side else None, fix)
