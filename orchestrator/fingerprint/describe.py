"""Fingerprints in words: names for families, what two devices do differently. Documents only."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.store.records import sha256_of

Document = Mapping[str, Any]
SATURATES = "saturates, "
"""Begins the name of a mode in which int16 sums of pairs overflowed."""
SAME = {"rndnu": "half-up"}
"""Modes that differ in the bits of their multiplier only, under the name of the rounding."""
PLAN = "plan of "
"""Begins the name of a family that asks for the optimiser's plan."""
GRAINS = ("per-channel", "per-tensor")
TYPES = re.compile(r"[us]8[us]8|u?int8|float32", re.IGNORECASE)
INTEGER = {
    "QLinearConv": "Conv",
    "QLinearAdd": "Add",
    "QGemm": "Gemm",
    "QLinearMatMul": "MatMul",
    "MatMulIntegerToFloat": "MatMul",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
}
REAL = {
    "Conv": "Conv",
    "FusedConv": "Conv",
    "NhwcFusedConv": "Conv",
    "Add": "Add",
    "Gemm": "Gemm",
    "FusedGemm": "Gemm",
    "MatMul": "MatMul",
    "FusedMatMul": "MatMul",
    "GlobalAveragePool": "GlobalAveragePool",
}
"""ONNX Runtime's operators by what they compute on integers and in float."""


def identity(document: Document) -> str:
    """Over what was answered and planned, and by which pack; not over the names given to it."""
    answers = {
        name: [family["sha256"], family.get("plan_sha256")]
        for name, family in document["families"].items()
    }
    return sha256_of({"pack": document["pack"], "answers": answers, "threads": document["threads"]})


def narrowed(document: Document, families: Sequence[str]) -> dict[str, Any]:
    """What is left of a fingerprint for a model of some operators, with an identity of its own.

    ``families``: globs of family names. Devices that the whole splits may be one here.
    """
    kept = {
        name: family
        for name, family in document["families"].items()
        if any(fnmatchcase(name, glob) for glob in families)
    }
    probes = {probe for family in kept.values() for probe in family["probes"]}
    threads = {
        count: [name for name in names if name in probes]
        for count, names in document["threads"].items()
    }
    made = {**document, "families": kept, "threads": threads}
    return made | {"sha256": identity(made)}


def label(told: Sequence[Mapping[str, Any]]) -> str:
    """One name for a family: the mode that explains all its probes, else what explains them.

    "double-up x5 + double x1": no mode alone; "unmatched:1a2b3c4d": none at all; "hash:1a2b3c4d":
    the golden reference does not know the operator.
    """
    names: list[str] = []
    left = [probe for probe in told if not probe["error"]]
    if all(probe["modes"] is None for probe in left):
        names, left = [_hashed("hash", left)] * bool(left), []
    while left:
        counts = Counter(mode for probe in left for mode in probe["modes"])
        if not counts:
            names.append(_hashed("unmatched", left))
            break
        mode, _ = counts.most_common(1)[0]
        group = [probe for probe in left if mode in probe["modes"]]
        whole = len(group) == len(told)
        names.append("/".join(_common(group)) + (f" x{len(group)}" if not whole else ""))
        left = [probe for probe in left if mode not in probe["modes"]]
    errors = sorted({probe["error"] for probe in told if probe["error"]})
    return " + ".join(names + [f"refused ({', '.join(errors)})"] * bool(errors))


def _common(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Modes that explain all of them, in the order in which the golden reference lists them."""
    kept = [m for m in told[0]["modes"] if all(m in probe["modes"] for probe in told)]
    return list(dict.fromkeys(SAME.get(mode, mode) for mode in kept))


def _hashed(word: str, told: Sequence[Mapping[str, Any]]) -> str:
    answers = "".join(probe["answer"] for probe in told)
    return f"{word}:{hashlib.sha256(answers.encode()).hexdigest()[:8]}"


def plan_words(plans: Iterable[Mapping[str, int]]) -> str:
    """Which operators an optimiser kept in float: "2 of 3 Conv, 1 of 1 Add in float"."""
    integer: Counter[str] = Counter()
    real: Counter[str] = Counter()
    for plan in plans:
        for operator, count in plan.items():
            kind = operator.rpartition(".")[2]
            if kind in INTEGER:
                integer[INTEGER[kind]] += count
            elif kind in REAL:
                real[REAL[kind]] += count
    if not real:
        return "all in integers"
    parts = [f"{n} of {n + integer[kind]} {kind}" for kind, n in sorted(real.items())]
    return f"{', '.join(parts)} in float"


def summary(document: Document) -> str:
    """The whole of it in one line: how many families round how, and what is out of the ordinary."""
    counts: Counter[str] = Counter()
    for family in document["families"].values():
        if not family["mode"].startswith(("hash:", "unmatched:")):
            counts[family["mode"].removeprefix(SATURATES)] += 1
    parts = [", ".join(f"{n} {mode}" for mode, n in counts.most_common())]
    saturates = [n for n, f in document["families"].items() if f["mode"].startswith(SATURATES)]
    parts += [f"saturates{_of(saturates)}"] if saturates else []
    parts += [
        f"{name}: {family['plan']}"
        for name, family in document["families"].items()
        if name.startswith(PLAN) and "float" in family.get("plan", "")
    ]
    parts += [
        f"{len(names)} answered differently with {count} threads"
        for count, names in sorted(document["threads"].items())
        if names
    ]
    return "; ".join(parts)


def differing(a: Document, b: Document) -> dict[str, list[str]]:
    """What ``a`` does instead of what ``b`` does -> the families in which it does.

    Saturation comes first, then what most families do.
    """
    said: dict[str, list[str]] = {}
    for family, mine in a["families"].items():
        other = b["families"][family]
        if mine["sha256"] != other["sha256"]:
            said.setdefault(_change(mine["mode"], other["mode"]), []).append(family)
        if mine.get("plan_sha256") != other.get("plan_sha256"):
            plans = mine.get("plan"), other.get("plan")
            what = f"runs {plans[0]}, not {plans[1]},"
            if plans[0] == plans[1]:
                what = "has another optimised graph"
            said.setdefault(what, []).append(family)
    for count in sorted(set(a["threads"]) | set(b["threads"])):
        if a["threads"].get(count) != b["threads"].get(count):
            said.setdefault(f"depends differently on {count} threads", [])
    order = sorted(said, key=lambda what: (not what.startswith("saturates"), -len(said[what])))
    return {what: said[what] for what in order}


def difference(a: Document, b: Document, name: str) -> str:
    """What ``a`` does that ``b``, called ``name``, does not: one line."""
    if a["sha256"] == b["sha256"]:
        return f"as {name}"
    if a["pack"] != b["pack"]:
        return f"not comparable with {name}: other probes were asked"
    parts = [f"{what}{_of(families)}" for what, families in differing(a, b).items()]
    return f"{'; '.join(parts)}; otherwise as {name}"


def _change(mine: str, other: str) -> str:
    if mine.startswith(SATURATES) != other.startswith(SATURATES):
        return "saturates" if mine.startswith(SATURATES) else "does not saturate"
    nameless = ("unmatched:", "hash:")
    if mine == other or any(word in mine + other for word in nameless):
        return "answers differently in"
    return f"{mine} instead of {other} in"


def _of(families: Sequence[str]) -> str:
    """Families by their types, each type said once: " U8S8 (MatMulInteger, QLinearConv)"."""
    by_type: dict[str, dict[str, None]] = {}
    for family in families:
        words = [word for word in family.split() if word not in GRAINS]
        kind = next((word.strip(",") for word in words if TYPES.fullmatch(word)), "")
        rest = " ".join(word for word in words if word != kind)
        by_type.setdefault(kind, {})[rest] = None
    parts = [
        f"{kind} ({', '.join(rests)})" if kind else ", ".join(rests)
        for kind, rests in by_type.items()
    ]
    return f" {', '.join(parts)}" if parts else ""
