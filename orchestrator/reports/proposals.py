"""What `assay devices scan` prints: YAML to paste into an inventory, remarks as comments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestrator.devices.scan import Found


def rendered(found: Sequence[Found], addresses: int) -> str:
    """An inventory file of what may be new; everything else as comments above it."""
    import yaml

    named = distinct(found)
    lines = [f"# {_line(one)}" for one in named if one.entry is None]
    proposals = [one for one in named if one.entry is not None]
    if proposals:
        lines += ["version: 1", "devices:"]
    for one in proposals:
        lines.append(f"  # {_line(one)}")
        lines += [f"  # {_one_line(note)}" for note in one.notes]
        text = yaml.safe_dump([one.entry], sort_keys=False, allow_unicode=True, width=1000)
        lines += [f"  {line}" for line in text.splitlines()]
    asked = f" of {addresses} addresses" if addresses else ""
    known = sum(one.known is not None for one in named)
    lines.append(f"# {len(named)} found{asked}: {known} known, {len(proposals)} proposed")
    return "\n".join(lines)


def document(found: Sequence[Found], addresses: int) -> dict[str, Any]:
    """The JSON document ``assay.scan/1``."""
    return {
        "schema": "assay.scan/1",
        "addresses": addresses,
        "found": [
            {**vars(one), "notes": list(one.notes), "classes": list(one.classes)}
            for one in distinct(found)
        ],
    }


def distinct(found: Sequence[Found]) -> list[Found]:
    """No two entries of one name: a second one gets a number."""
    used: Counter[str] = Counter()
    named = []
    for one in found:
        if one.entry is not None:
            name = one.entry["name"]
            used[name] += 1
            if used[name] > 1:
                one = replace(one, entry={**one.entry, "name": f"{name[:59]}-{used[name]}"})
        named.append(one)
    return named


def _line(one: Found) -> str:
    known = f" is {one.known} of the inventory" if one.known else ""
    error = f" [{one.error}]" if one.error else ""
    fix = f": {one.fix}" if one.fix else ""
    notes = f"; {'; '.join(one.notes)}" if one.notes and one.entry is None else ""
    return _one_line(f"{one.how} {one.address}{known}: {one.says}{notes}{error}{fix}")


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
