"""`assay history`: one row for each device and model file, then every change, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from orchestrator.reports import format as fmt
from orchestrator.reports.columns import columns, line
from orchestrator.variance.factors import unusual

Json = Mapping[str, Any]

_HEADS = (
    *("device", "class", "model.file", "first seen", "last seen", "runs", "outcomes"),
    *("runtime versions", "asked again", "unchanged", "changed"),
)


def render(document: Json, console: Console) -> None:
    """The table; below it what changed, and whether the bytes changed with it."""
    rows = document["rows"]
    columns(console, _HEADS, [_row(row) for row in rows])
    # One update changes many questions at once: equal lines are said once, with their number.
    said = Counter(f"{row['device']} {_step(row, step)}" for row in rows for step in row["steps"])
    for text, count in said.items():
        line(console, text + (f" [{count} questions]" if count > 1 else ""))
    for damaged in document["damaged"]:
        line(console, f"unreadable: {damaged['what']}: {damaged['error']}")


def _row(row: Json) -> tuple[str, ...]:
    known = [f"{name} {', '.join(v or '?' for v in vs)}" for name, vs in row["versions"].items()]
    again, same = row["asked_again"], row["unchanged"]
    return (
        row["device"],
        row["device_class"] + (" (emulated)" if row["emulated"] else ""),
        row["file"],
        fmt.moment(row["first_unix"])[:16],
        fmt.moment(row["last_unix"])[:16],
        str(row["runs"]),
        "  ".join(f"{n} {outcome}" for outcome, n in row["outcomes"].items()),
        "; ".join(known) or fmt.DASH,
        f"{again} of {row['questions']}",
        f"{same}/{again}" if again else fmt.DASH,
        f"{again - same}/{again}" if again else fmt.DASH,
    )


def _step(row: Json, step: Json) -> str:
    """Where the bytes stayed, of the runtime as a whole; where not, of the one question."""
    setting, moved = [step["runtime"]], "the same bytes"
    if not step["identical"]:
        setting = [row["file"], step["runtime"], f"threads {step['threads']}"]
        setting += [*unusual({**step, "condition": None}), step["condition"]]
        moved = f"other bytes in {fmt.rate(step['different'])} of the samples"
    since = "; ".join(_change(c) for c in step["changes"]) or (
        "nothing that is recorded changed: a fault, or an answer that does not repeat;"
        " another unit's would tell which"
    )
    return f"{' '.join(setting)} since {step['run']}: {moved} ({since})"


def _change(change: Json) -> str:
    return f"{change['what']} {_short(change['before'])} → {_short(change['after'])}"


def _short(value: Any) -> str:
    text = fmt.number(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
