"""Which unit represented which in a run planned by equivalence class, as lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """One for each representative, for each row that nobody stands for, and what it all saved."""
    told = document.get("by_class")
    if told is None:
        return
    rows = [(row, s) for row in document["rows"] if (s := row.get("by_class"))]
    covered = Counter(
        (s["by"], s["drawn"], s["at_most"], s["of"], s["confidence"])
        for _, s in rows
        if s["standing"] == "covered"
    )
    for (by, drawn, most, of, confidence), count in covered.items():
        yield (
            f"{by} stands for {count} row{'' if count == 1 else 's'}: {drawn} samples drawn of each"
            f" answered alike, so at most {most} of {of} differ ({100 * confidence:g} % confidence)"
        )
    for row, s in rows:
        if s["standing"] == "left":
            yield f"{row['id']} left its class and ran in full: {s['why']}"
        elif s["standing"] == "alone":
            yield f"{row['id']} is represented by nobody: {s['why']}"
    yield saved(told)


def saved(told: Mapping[str, Any]) -> str:
    """What was not run, in inferences and device-hours."""
    if not told["covered"]:
        return "by class: nothing saved"
    head = f"by class: {told['saved_inferences']:,} inferences not run"
    hours = f"{device_time(told['saved_s'])} at the pace of the spot checks"
    note = " (emulated, which says nothing of hardware)" if told["emulated"] else ""
    return f"{head}, {hours}{note}"


def device_time(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} device-{unit}"
    return f"{seconds:.2g} device-seconds"
