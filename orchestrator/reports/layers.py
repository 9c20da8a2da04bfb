"""`assay layers`: the operators at which two devices part, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from orchestrator.reports import format as fmt

_HEADINGS = ("#", "operator", "name", "in the model", "on equal inputs", "guilty")
_TAPS = (
    *("#", "operator", "SQNR dB", "alone", "off", "RMSE/scale", "JS", "W1/σ"),
    *("clipped", "outside", "codes used", "growth"),
)
_NAMED = 40
"""Letters of an operator's name that a line has room for."""
_SHOWN = 8


def render(document: Mapping[str, Any], console: Console) -> None:
    """The verdict in one line, what it rests on, then a line for each operator."""
    a, b, asked = document["a"]["row"], document["b"]["row"], document["samples_differing"]
    _line(console, headline(document))
    _line(
        console,
        f"{document['model']}.{document['file']} on {document['inputs']}: {a} / {b}; "
        f"{asked['k']} of {asked['n']} samples differ, {len(document['samples'])} looked into",
    )
    for side in (document["a"], document["b"]):
        if side["reproduced"] is False:
            _line(console, f"NOTE: {side['row']} no longer gives what the run recorded of it")
    if document["plan"] is not None:
        _plan(document, console)
    if document["reason"] and document["answer"] != "not-localisable":
        _line(console, document["reason"])
    _operators(document["operators"], console)
    if document["no_taps"] is not None:
        _line(console, f"no comparison with FP32: {document['no_taps']}")
    if document["taps"] is not None:
        _taps(document["taps"], document["lineage"], console)


def headline(document: Mapping[str, Any]) -> str:
    """The answer on one line."""
    answer, operators = document["answer"], document["operators"]
    if answer == "not-localisable":
        return f"not localisable: {document['reason']}"
    if answer == "equal":
        return f"no operator differs in {len(document['samples'])} samples"
    if answer == "plan":
        parts = [f"plan: {_layers(document)}"]
        if document["first"] is not None:
            a = document["a"]["row"]
            parts.append(f"under the plan of {a} on both, first: {_first(document)}")
        return "; ".join(parts)
    parts = []
    if document["first"] is None:
        parts.append("no operator's output differs in the model")
    else:
        parts.append(f"first diverging operator: {_first(document)}")
    numbers = [f"#{i}" for i in document["guilty"]]
    kinds = Counter(operators[i]["kind"] for i in document["guilty"])
    if len(numbers) > _SHOWN:
        told = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        numbers = [*numbers[:_SHOWN], f"… ({told})"]
    parts.append(f"guilty: {', '.join(numbers) or 'none by itself'}")
    return "; ".join(parts)


def _first(document: Mapping[str, Any]) -> str:
    operator = document["operators"][document["first"]]
    told = _difference(operator["accumulated"])
    return f"#{operator['index']} {operator['kind']} '{short(operator['name'])}' ({told})"


def short(name: str) -> str:
    """Converters name a fused operator after all of its parts, the last of them at the end."""
    return name if len(name) <= _NAMED else f"…{name[1 - _NAMED :]}"


def _difference(found: Mapping[str, Any] | None) -> str:
    """Of the chosen samples only, and elements of one sample depend on each other: no interval."""
    if found is None:
        return fmt.DASH
    if not found["different"]:
        return "equal"
    size = (
        f"max {found['max_lsb']} LSB"
        if found["max_lsb"] is not None
        else f"max {fmt.number(found['max_abs'])}"
    )
    share = f"{100 * found['different'] / found['elements']:.3f}".rstrip("0").rstrip(".")
    return (
        f"{share if share != '0' else '<0.001'} % of {found['elements']:,} elements, "
        f"{size}, {found['sign']}"
    )


def _layers(document: Mapping[str, Any]) -> str:
    """``6 of 9 Conv in float on A, in integers on B``."""
    plan = document["plan"]
    rows = {"a": document["a"]["row"], "b": document["b"]["row"]}
    ways: dict[tuple[str, str], Counter[str]] = {}
    whole: Counter[str] = Counter()
    for kind, n in plan["same"].items():
        whole[_family(kind)] += n
    for layer in plan["layers"]:
        integer = next(side for side in ("a", "b") if _family(layer[side]) != layer[side])
        other = "b" if integer == "a" else "a"
        family = _family(layer[integer])
        ways.setdefault((other, integer), Counter())[family] += 1
        whole[family] += 1
    told = [
        ", ".join(f"{n} of {whole[family]} {family}" for family, n in found.items())
        + f" in float on {rows[floating]}, in integers on {rows[integer]}"
        for (floating, integer), found in ways.items()
    ]
    return "; ".join(told) or "the devices run different graphs of the file"


def _family(kind: str) -> str:
    """What an integer operator computes: QLinearConv is a Conv."""
    return kind.removeprefix("QLinear") if kind.startswith("QLinear") else kind.removeprefix("Q")


def _plan(document: Mapping[str, Any], console: Console) -> None:
    plan, matters = document["plan"], document["plan_matters"]
    for side in ("a", "b"):
        more = ", ".join(f"{n} {kind}" for kind, n in sorted(plan[side].items()))
        if more:
            _line(console, f"plan of {document[side]['row']} has more: {more}")
    for layer in plan["layers"]:
        _line(console, f"  {layer['name']}: {layer['a']} / {layer['b']}")
    if matters is False:
        b, a = document["b"]["row"], document["a"]["row"]
        _line(console, f"the plans differ to no effect: {b} answers the same under that of {a}")


def _operators(operators: Sequence[Mapping[str, Any]], console: Console) -> None:
    if not operators:
        return
    _columns([_HEADINGS, *(_cells(operator) for operator in operators)], console)


def _columns(lines: Sequence[Sequence[str]], console: Console) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        padded = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        _line(console, padded.rstrip())


def _taps(document: Mapping[str, Any], lineage: Mapping[str, Any] | None, console: Console) -> None:
    """Layers of one row against the FP32 parent's, with what has a name first."""
    taps = document["taps"]
    _line(console, f"{document['row']} against its FP32 parent, every layer (taps):")
    if lineage is not None:
        _line(console, f"  {fmt.lineage(lineage)}")
    for finding in document["findings"]:
        at = taps[finding["tap"]]
        _line(console, f"  {finding['name']} begins at {_where(at)}: {finding['why']}")
    if not document["findings"]:
        _line(console, "  no dynamic range collapse, unsound operator or saturation cascade")
    _columns([_TAPS, *(_tap(each) for each in taps)], console)


def _where(tap: Mapping[str, Any]) -> str:
    if tap["index"] is None:
        return f"the input '{short(tap['name'])}'"
    return f"#{tap['index']} {tap['kind']} '{short(tap['name'])}'"


def _tap(tap: Mapping[str, Any]) -> tuple[str, ...]:
    whole, alone = tap["accumulated"], tap["local"]
    keys = ("rmse_scale", "js", "w1_sigma", "clip_excess", "range_overflow", "code_utilisation")
    return (
        fmt.DASH if tap["index"] is None else str(tap["index"]),
        tap["kind"],
        decibels(whole),
        decibels(alone),
        fmt.DASH if tap["arithmetic"] is None else f"{tap['arithmetic']['max_steps']:.2f}",
        *(fmt.number(whole[key]) for key in keys),
        fmt.number(tap["amplification"]),
    )


def decibels(stats: Mapping[str, Any] | None) -> str:
    """JSON has no infinity: without a number there was no error, or nothing to measure."""
    if stats is None:
        return fmt.DASH
    if stats["sqnr_db"] is None:
        return "exact" if stats["max_abs"] == 0 else fmt.DASH
    return f"{stats['sqnr_db']:.1f}"


def _cells(operator: Mapping[str, Any]) -> tuple[str, ...]:
    alone = _difference(operator["local"])
    if operator["alone_as_in_model"] is False:
        alone += " (alone it computes differently than in the model)"
    return (
        str(operator["index"]),
        operator["kind"],
        short(operator["name"]),
        _difference(operator["accumulated"]),
        alone,
        "guilty" if operator["guilty"] else "",
    )


def _line(console: Console, text: str) -> None:
    console.print(fmt.printable(text), markup=False, highlight=False, soft_wrap=True)
