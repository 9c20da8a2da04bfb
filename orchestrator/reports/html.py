"""One self-contained HTML file: no script, no link to anywhere, every name escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from orchestrator.conditions import CLEAN
from orchestrator.reports import by_class, charts
from orchestrator.reports import format as fmt
from orchestrator.reports.headline import available, emulated_devices, headline
from orchestrator.signoff.result import COVERAGE

AXIS_WIDTH = 420
OPEN_TRACES = 12
"""More traces than this are folded away per model file, to keep the page readable."""

Row = Mapping[str, Any]
Notes = Mapping[str, Sequence[str]]
"""Attempt -> what it notes of how its numbers came about."""


def render(document: Mapping[str, Any]) -> str:
    """The report as HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_text,
    )
    environment.globals |= {"fmt": fmt, "available": available, "marks": fmt.MARKS}
    environment.filters["by_step"] = _by_step
    rows: Sequence[Row] = document["rows"]
    notes: Notes = {a["id"]: a.get("notes", []) for a in document["attempts"]}
    view = {
        "doc": document,
        "headline": headline(document),
        "emulated": emulated_devices(document),
        # Anchors are numbers: a name never becomes part of an address or an id.
        "anchor": {row["id"]: f"row-{number}" for number, row in enumerate(rows)},
        "glance": _glance(rows),
        "coverage": [(fmt.words(name), document["coverage"][name]) for name in COVERAGE],
        "groups": [_group(key, mine, document, notes) for key, mine in _grouped(rows).items()],
        "heat_labels": charts.HEAT_LABELS,
        "axis_width": AXIS_WIDTH,
        "traces": _traces(document, notes),
        "traces_open": len(document["traces"]) <= OPEN_TRACES,
        "power": _power(document),
        "by_class": list(by_class.lines(document)),
        "environments": _environments(document),
    }
    return environment.get_template("report.html.j2").render(view)


def _text(value: Any) -> Any:
    """What a template prints: unknown is a dash, and no name can smuggle in control characters."""
    if value is None:
        return fmt.DASH
    return fmt.printable(value) if type(value) is str else value


Key = tuple[str, str, str]


def _key(item: Mapping[str, Any]) -> Key:
    return item["model"], item["file"], item["inputs"]


def _grouped(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(_key(row), []).append(row)
    return groups


def _lane(row: Row) -> str:
    return f"{row['device']}/{row['runtime']}"


def _glance(rows: Sequence[Row]) -> dict[str, Any]:
    """Verdicts as a grid: a line per device and runtime, a column per model file."""
    lanes: dict[str, dict[str, dict[Key, Row]]] = {}
    models: dict[tuple[str, str], dict[Key, None]] = {}
    for row in rows:
        lanes.setdefault(row["device"], {}).setdefault(row["runtime"], {})[_key(row)] = row
        models.setdefault((row["model"], row["inputs"]), {})[_key(row)] = None
    return {
        "models": [(model, inputs, len(keys)) for (model, inputs), keys in models.items()],
        "keys": [key for keys in models.values() for key in keys],
        "lanes": [
            (next(iter(cells.values())), cells)
            for runtimes in lanes.values()
            for cells in runtimes.values()
        ],
    }


def _group(
    key: Key, rows: Sequence[Row], document: Mapping[str, Any], notes: Notes
) -> dict[str, Any]:
    model, file, inputs = key
    return {
        "title": f"{model}.{file}",
        "inputs": inputs,
        "rows": rows,
        "latency": {row["id"]: _latency(row, document, notes) for row in rows},
        "tally": _tally(rows),
        "heat": _heat(rows, [pair for pair in document["pairs"] if _key(pair) == key]),
        "accuracy": _accuracy(rows, [r for r in document["rows"] if r["model"] == model]),
        "fleet": [entry for entry in document["fleet"] if _key(entry) == key],
    }


def _latency(row: Row, document: Mapping[str, Any], notes: Notes) -> dict[str, Any] | None:
    """The row's latency, and why its timing is invalid where it is."""
    found = document["latency"].get(row["id"])
    if found is None:
        return None
    clean = [c["attempt"] for c in row.get("cells", []) if c["condition"] == CLEAN]
    return {**found, "why": _why(notes, clean)}


def _why(notes: Notes, attempts: Sequence[str | None]) -> str:
    """What the attempts note of how their numbers came about."""
    told = [note for attempt in attempts for note in notes.get(attempt or "", [])]
    return "; ".join(dict.fromkeys(told)) or "the clock moved or the device was throttled"


def _power(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every power rail of every attempt, in watts."""
    return [
        {
            "attempt": attempt,
            "rail": name.partition("/")[2],
            **{at: None if v is None else f"{v / 1000:.2f}" for at, v in reading.items()},
        }
        for attempt in document["attempts"]
        for name, reading in attempt.get("sensors", {}).items()
        if name.startswith("power/")
    ]


def _tally(rows: Sequence[Row]) -> list[tuple[str, int]]:
    words = [row["verdict"] if available(row) else "not_available" for row in rows]
    return [(word, words.count(word)) for word in fmt.MARKS if word in words]


def _heat(rows: Sequence[Row], pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Rows × rows of (row is other, pair or None, colour step)."""
    if not pairs:
        return None
    found = {frozenset((pair["a"], pair["b"])): pair for pair in pairs}
    runtimes = {row["runtime"] for row in rows}
    labels = [row["device"] if len(runtimes) == 1 else _lane(row) for row in rows]
    lines = []
    for row in rows:
        cells = []
        for other in rows:
            pair = found.get(frozenset((row["id"], other["id"])))
            cells.append((row is other, pair, pair and charts.heat_step(pair["disagreement"])))
        lines.append(cells)
    heads = list(zip(rows, labels, strict=True))
    return {
        "heads": heads,
        "lines": list(zip(heads, lines, strict=True)),
        "pairs": len(pairs),
        "apart": sum(bool((pair["disagreement"] or {}).get("k")) for pair in pairs),
        "unequal": sum(pair["bit_exact_rate"] != 1 for pair in pairs),
    }


def _accuracy(rows: Sequence[Row], of_model: Sequence[Row]) -> dict[str, Any] | None:
    """Dots and intervals; one axis for every file of a model, so that its charts compare."""
    if not any(_drawable(row["accuracy"]) for row in rows):
        return None
    own = [row["accuracy"] for row in of_model if _drawable(row["accuracy"])]
    parents = [_parent(row) for row in of_model]
    axis = charts.rate_axis(own, [p for p in parents if p and _drawable(p)], AXIS_WIDTH)
    lines = [
        {
            "row": row,
            "parent_rate": _parent(row),
            "own": _interval(axis, row["accuracy"]),
            "parent": _interval(axis, _parent(row)),
        }
        for row in rows
    ]
    ticks = [(axis.at(tick), f"{100 * tick:g}") for tick in axis.ticks()]
    return {"lines": lines, "ticks": ticks}


def _parent(row: Row) -> fmt.Rate | None:
    return row["fp32"]["accuracy"] if row["fp32"] else None


def _drawable(rate: fmt.Rate | None) -> bool:
    return rate is not None and None not in (rate["rate"], rate["low"], rate["high"])


def _interval(axis: charts.Axis, rate: fmt.Rate | None) -> dict[str, float | bool] | None:
    """Positions on the axis; ``far`` when it lies (mostly) left of it."""
    if rate is None or not _drawable(rate):
        return None
    places = {name: max(0.0, axis.at(rate[name])) for name in ("low", "rate", "high")}
    return {**places, "far": rate["rate"] < axis.low}


def _by_step(histogram: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """An LSB histogram in numeric order: stored JSON has its keys sorted as text."""
    return sorted(histogram.items(), key=lambda item: (item[0][0] == ">", int(item[0].strip(">"))))


def _traces(document: Mapping[str, Any], notes: Notes) -> list[tuple[str, list[dict[str, Any]]]]:
    """Traces by model file."""
    rows = {row["id"]: row for row in document["rows"]}
    groups: dict[str, list[dict[str, Any]]] = {}
    for trace in document["traces"]:
        row = rows[trace["row"]]
        title = f"{row['model']}.{row['file']} on {row['inputs']}"
        groups.setdefault(title, []).append(_trace(trace, row, document["latency"], notes))
    return list(groups.items())


def _trace(
    trace: Mapping[str, Any], row: Row, latency: Mapping[str, Mapping[str, Any]], notes: Notes
) -> dict[str, Any]:
    times = trace["t_s"]
    end = fmt.seconds(times[-1]) if times else fmt.DASH
    gigahertz = {name: _scaled(values, 1e-6) for name, values in trace["freq_khz"].items()}
    micros = trace["latency_us"]
    slow = max((value for value in micros if value is not None), default=0) >= 1000
    samples = {"sample": _scaled(micros, 1e-3 if slow else 1)} if micros else {}
    order = [float(i) for i in range(len(micros))]
    watts = {name: _scaled(values, 1e-3) for name, values in trace.get("power_mw", {}).items()}
    power = [charts.plot("Power", "W", times, watts, end)] if watts else []
    return {
        "row": trace["row"],
        "attempt": trace["attempt"],
        "emulated": row["emulated"],
        "timing_valid": latency.get(trace["row"], {}).get("timing_valid", True),
        "why": _why(notes, [trace["attempt"]]),
        "plots": [
            charts.plot("Temperature", "°C", times, trace["temp_c"], end),
            charts.plot("Clock", "GHz", times, gigahertz, end),
            *power,
            charts.plot("Latency", "ms" if slow else "µs", order, samples, "last sample"),
        ],
    }


def _scaled(values: charts.Series, factor: float) -> list[float | None]:
    return [None if value is None else value * factor for value in values]


def _environments(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each environment with the devices and attempts that reported it."""
    found = []
    for sha256, facts in document["environments"].items():
        mine = [a for a in document["attempts"] if a.get("environment") == sha256]
        found.append(
            {
                "facts": _flat(facts),
                "devices": list(dict.fromkeys(a["device"] for a in mine)),
                "attempts": [a["id"] for a in mine],
            }
        )
    return found


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as dotted names with their values as text."""
    facts: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            facts += _flat(item, f"{prefix}{name}.")
        else:
            facts.append((f"{prefix}{name}", fmt.number(item)))
    return facts
