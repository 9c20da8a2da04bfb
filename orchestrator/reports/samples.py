"""Single samples with their numbers as a table; what no sample has gets no column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from orchestrator.reports import format as fmt
from orchestrator.reports.columns import columns

Json = Mapping[str, Any]
FIGURES = {
    "label": "label",
    "decision": "decision",
    "margin": "margin",
    "p1": "p1",
    "entropy": "entropy",
    "nll": "NLL",
    "kld": "KLD",
    "tv": "TV",
}
"""Of one side, in order -> heading. The others (top five, flips) are in the JSON."""
APART = {"lsb": "max LSB", "max_abs": "max |a-b|", "jsd": "JSD"}


def of_row(found: Sequence[Json], console: Console) -> None:
    """Each as `views.samples.Samples.of_row` gives it."""
    names = [name for name in FIGURES if name in found[0] and not _many(found[0][name])]
    flips = ["flip"] if "disagree" in found[0] else []
    lines = [
        (str(x["sample"]), *(_flip(x) for _ in flips), *(_number(x[name]) for name in names))
        for x in found
    ]
    columns(console, ("sample", *flips, *(FIGURES[name] for name in names)), lines)


def of_pair(found: Sequence[Json], console: Console) -> None:
    """Each as `views.samples.Samples.of_pair` gives it: figures of a, then of b, with a slash."""
    apart = [name for name in APART if name in found[0]]
    a, b = found[0]["a"], found[0]["b"]
    names = [n for n in FIGURES if n in a and n in b and n != "label" and not _many(a[n])]
    label = ["label"] if "label" in a and not _many(a["label"]) else []
    headings = ("sample", "otherwise", *(APART[n] for n in apart), *label)
    lines = [
        (
            str(x["sample"]),
            "yes" if x["differ"] else "",
            *(_number(x[n]) for n in apart),
            *(_number(x["a"][n]) for n in label),
            *(f"{_number(x['a'][n])} / {_number(x['b'][n])}" for n in names),
        )
        for x in found
    ]
    columns(console, (*headings, *(f"{FIGURES[n]} a / b" for n in names)), lines)


def _flip(x: Json) -> str:
    if x.get("c_to_i"):
        return "C→I"
    if x.get("i_to_c"):
        return "I→C"
    return "other" if x["disagree"] else ""


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else fmt.number(value)


def _many(value: Any) -> bool:
    """Regressions decide, and are labelled, with as many values as the output has."""
    return isinstance(value, list)
