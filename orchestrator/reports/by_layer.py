"""`assay variance --by layer` as text: a line for each layer, a column for each distinct row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.reports import format as fmt
from orchestrator.reports.layers import decibels, short

Json = Mapping[str, Any]
LEGEND = "SQNR in dB of what the model has there / of the layer alone on FP32's own tensors"


def head(one: Json) -> str:
    """No interval: elements of one activation depend on each other."""
    looked = f"{len(one['samples'])} of {one['n']} samples looked into"
    return f"{one['model']}.{one['file']} on {one['inputs']}: {looked}; {LEGEND}"


def table(one: Json) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and lines. Rows may run other operators; they meet in the parent's tensor."""
    rows = [row for row in one["rows"] if row["taps"]]
    layers: dict[str, Json] = {}
    for row in rows:
        for tap in row["taps"]:
            layers.setdefault(tap["twin"], tap)
    columns = [{tap["twin"]: tap for tap in row["taps"]} for row in rows]
    lines = [
        (
            fmt.DASH if tap["index"] is None else str(tap["index"]),
            tap["kind"],
            short(tap["name"]),
            *(_cell(column.get(twin)) for column in columns),
        )
        for twin, tap in layers.items()
    ]
    return ("#", "operator", "name", *(_who(row) for row in rows)), lines


def notes(one: Json) -> list[str]:
    """What has a name, and rows without a column of their own, each with the reason."""
    told = []
    for row in one["rows"]:
        if row["problem"]:
            told.append(f"{_who(row)}: {row['problem']}")
        elif row["same_as"]:
            told.append(f"{_who(row)}: bit-identical to {row['same_as'].partition('@')[2]}")
        if row["reproduced"] is False:
            told.append(f"NOTE: {_who(row)} no longer gives what the run recorded of it")
        for finding in row["findings"]:
            at = row["taps"][finding["tap"]]
            where = f"{at['kind']} '{short(at['name'])}'"
            told.append(f"{_who(row)}: {finding['name']} begins at {where}: {finding['why']}")
    return told


def _cell(tap: Json | None) -> str:
    if tap is None:
        return fmt.DASH
    return f"{decibels(tap['accumulated'])} / {decibels(tap['local'])}"


def _who(row: Json) -> str:
    return f"{row['device']}/{row['runtime']}"
