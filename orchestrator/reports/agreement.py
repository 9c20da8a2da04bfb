"""`assay agreement` as text: repeatability, reproducibility, and what each factor changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from orchestrator.reports import format as fmt
from orchestrator.reports.columns import columns, line
from orchestrator.variance.factors import unusual

Json = Mapping[str, Any]

_LEVELS = {
    "within": "within unit",
    "units": "units of a class",
    "classes": "classes",
    "runtimes": "runtimes",
    "versions": "versions",
}
_AGREEMENT = (
    *("agreement", "of", "all else equal"),
    *("decided alike (95 % CI)", "bit-identical", "Fleiss' kappa (95 % CI)"),
)
_FACTORS = (
    *("factor alone", "pairs", "identical", "samples moved (95 % CI)", "elements moved"),
    *("max LSB", "decisions moved (95 % CI)", "most between"),
)


def render(document: Json, console: Console) -> None:
    """One block for each study; then what was not compared, and what cannot be read."""
    runs = document["runs"]
    line(console, f"from {len(runs)} run{'' if len(runs) == 1 else 's'}: {', '.join(runs)}")
    for study in document["studies"]:
        line(console, "")
        _study(study, console)
    for refused in document["refused"]:
        line(console, f"not compared: {refused['what']}: {refused['why']}")
    for damaged in document["damaged"]:
        line(console, f"unreadable: {damaged['what']}: {damaged['error']}")


def kappa(found: Json | None) -> str:
    """``0.912 (0.871–0.953)``; a dash where it is undefined or has no meaning."""
    if found is None or found["value"] is None:
        return fmt.DASH
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def _study(study: Json, console: Console) -> None:
    name = f"{study['model']}.{study['file']} on {study['inputs']}"
    count = len(study["raters"])
    line(console, f"{name} ({study['file_sha256'][:12]}): {count} attempts")
    levels = [*study["within"], *study["between"]]
    if levels:
        columns(console, _AGREEMENT, [_level(found) for found in levels])
    again = study["passes"]
    if again:
        k, n = (sum(p["different"][x] for p in again) for x in ("k", "n"))
        line(console, f"later passes of one attempt: {k} of {n} outputs differ from the first")
    reference = next((r for r in study["raters"] if r["attempt"] == study["reference"]), None)
    if reference is None:
        line(console, f"no reference: {study['no_reference']}")
    _against(study["against_reference"], f"against {reference and reference['name']}", console)
    _against(study["against_truth"], "against the truth", console)
    if study["matched"]:
        columns(console, _FACTORS, [_moved(found) for found in study["matched"]])


def _level(found: Json) -> tuple[str, ...]:
    fixed = found["fixed"]
    shared = [fixed[k] for k in ("unit", "runtime", "version") if k in fixed]
    shared += [f"threads {fixed['threads']}"] if "threads" in fixed else []
    shared += unusual(fixed)
    who = ", ".join(found["who"]) if found["level"] != "within" else str(len(found["who"]))
    return (
        _LEVELS[found["level"]],
        who if found["level"] != "within" else f"{who} attempts",
        " ".join(shared),
        fmt.rate(found["alike"], level=False),
        fmt.counts(found["identical"]),
        kappa(found["kappa"]),
    )


def _against(found: Sequence[Json], head: str, console: Console) -> None:
    if found:
        rows = [(a["name"], fmt.rate(a["agree"], level=False), kappa(a["kappa"])) for a in found]
        columns(console, (head, "agrees (95 % CI)", "Cohen's kappa (95 % CI)"), rows)


def _moved(found: Json) -> tuple[str, ...]:
    elements, worst = found["elements"], found["worst"]
    unsteady = f" ({found['unsteady']} unsteady)" if found["unsteady"] else ""
    return (
        found["factor"],
        f"{found['pairs']}{unsteady}",
        str(found["identical"]),
        fmt.rate(found["bits"], level=False),
        f"{elements['different']}/{elements['compared']}",
        fmt.number(elements["max_lsb"]),
        fmt.rate(found["decisions"], level=False),
        f"{worst['a_value']} | {worst['b_value']}" if found["identical"] < found["pairs"] else "–",
    )
