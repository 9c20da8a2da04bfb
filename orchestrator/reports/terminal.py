"""The final table, the verdict per class and the overall verdict, for people and for pipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.reports import by_class
from orchestrator.reports import format as fmt
from orchestrator.reports.headline import available, headline

STYLES: Mapping[str, str] = {
    "pass": "green",
    "fail": "bold red",
    "inconclusive": "yellow",
    "covered-by-class": "cyan",
    "error": "magenta",
    "timeout": "magenta",
    fmt.NOT_AVAILABLE: "dim",
}

_HEADINGS = (
    "model.file",
    "device",
    "runtime",
    "verdict",
    "accuracy (95 % CI)",
    "C→I/I→C",
    "bit-exact vs ref (95 % CI)",
    "max LSB",
    "disagree",
)
_VERDICT, _ACCURACY, _BIT_EXACT, _MAX_LSB = (3, 4, 6, 7)


def render(document: Mapping[str, Any], console: Console, report: Path | None = None) -> None:
    """Print rows, classes, and last the overall verdict with its reasons and the report's path.

    On a terminal a table that fits it; elsewhere plain columns two or more spaces apart, one line
    per row, nothing cut. Devices whose timing is invalid get a line with the reason. Colour
    follows the console (so ``NO_COLOR``).
    """
    _rows(document["rows"], console)
    for file, facts in document.get("compiled", {}).items():
        _line(console, f"{file}: {facts['text']}", "dim")
    for file, words in document.get("signatures", {}).items():
        _line(console, f"{file}: {words}", "yellow")
    for file, told in document.get("lineage", {}).items():
        if told["verdict"] != fmt.TRUE_PAIR:
            _line(console, f"{file}: {fmt.lineage(told)}", "yellow")
    for row in document["rows"]:
        if (order := row.get("order")) and order["finding"]:
            _line(console, f"{row['id']}: {order['finding']}: {_reordered(order)}", "bold red")
    for told in document.get("damaged", []):
        _line(console, f"{told['what']} cannot be read: {told['error']}", "magenta")
    for line in by_class.lines(document):
        _line(console, line)
    for line in _timing(document):
        _line(console, line, "dim")
    _line(console)
    for group in document["classes"]:
        name = _device(group["device_class"], group["emulated"])
        # What the overall verdict repeats below is said once.
        told = group["reasons"] and any(group["reasons"][0] in r for r in document["reasons"])
        reason = f"  {group['reasons'][0]}" if group["reasons"] and not told else ""
        _verdict_line(console, f"class {name}: ", group["verdict"], reason)
    _line(console)
    _line(console, headline(document), STYLES[document["verdict"]])
    for reason in document["reasons"]:
        _line(console, f"  {reason}")
    if step := _next_step(document):
        _line(console, f"Next: {step}")
    if report is not None:
        _line(console, f"Report: {report}")


def _next_step(document: Mapping[str, Any]) -> str | None:
    """The command that says more of what went wrong, None where nothing did."""
    run = document["run"]["id"]
    if document["verdict"] in ("error", "timeout"):
        return f"assay logs {run} has the error of each attempt, assay resume {run} tries again"
    rows = {row["id"]: row for row in document["rows"]}
    for row in rows.values():
        reference = rows.get(row["reference"] or "")
        bits = (row["vs_reference"] or {}).get("bit_exact")
        unlike = bits is not None and bits["k"] < bits["n"]
        if row["verdict"] == "fail" and reference is not None and unlike:
            a, b = (f"{r['device']}/{r['runtime']}" for r in (row, reference))
            return f"assay explain {a} {b} --model {row['model']}.{row['file']}"
    return None


def _rows(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    if console.is_terminal:
        _table(rows, console)
        return
    lines = [_cells(row) for row in rows]
    notes = ["", *(_note(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *lines, strict=True)]
    for cells, note in zip([_HEADINGS, *lines], notes, strict=True):
        padded = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        _line(console, f"{padded}  {note}".rstrip())


def _table(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Rows under their model file's name; shorter columns where the screen has no room."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)
    roomy = console.width >= 140
    headings = {} if roomy else {_BIT_EXACT: "bit-exact", _MAX_LSB: "LSB"}
    for index, heading in enumerate(_HEADINGS[1:], start=1):
        table.add_column(headings.get(index, heading), overflow="fold")
    previous = ""
    for row in rows:
        cells = _cells(row)
        if cells[0] != previous:
            table.add_section()
            table.add_row(Text(cells[0], "bold"))
            previous = cells[0]
        short = {} if roomy else _short(row)
        texts = [Text(short.get(index, cell)) for index, cell in enumerate(cells)]
        texts[_VERDICT].stylize(STYLES[cells[_VERDICT]])
        table.add_row(*texts[1:])
    console.print(table)
    for row in rows:
        if not available(row):
            _line(console, f"{fmt.NOT_AVAILABLE}: {row['id']}: {_note(row)}", "dim")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    fp32, versus = row["fp32"] or {}, row["vs_reference"] or {}
    flips = (fp32.get("c_to_i"), fp32.get("i_to_c"))
    reference = "reference" if row["is_reference"] else None
    cells = (
        f"{row['model']}.{row['file']}",
        _device(row["device"], row["emulated"]),
        row["runtime"],
        row["verdict"] if available(row) else fmt.NOT_AVAILABLE,
        fmt.rate(row["accuracy"], level=False),
        fmt.DASH if None in flips else f"{flips[0]}/{flips[1]}",
        reference or fmt.rate(versus.get("bit_exact"), level=False),
        fmt.number(versus.get("max_lsb")),
        fmt.counts(versus.get("disagreement")),
    )
    return tuple(fmt.printable(cell) for cell in cells)


def _short(row: Mapping[str, Any]) -> dict[int, str]:
    """The wide cells of a row in fewer characters, by column."""
    short = {_ACCURACY: fmt.counts_in_range(row["accuracy"])}
    if row["vs_reference"]:
        short[_BIT_EXACT] = fmt.counts(row["vs_reference"]["bit_exact"])
    return short


def _note(row: Mapping[str, Any]) -> str:
    """Why a row is not there: without it "not available here" leaves the reader guessing."""
    return "" if available(row) else fmt.printable("; ".join(row["reasons"]))


def _reordered(order: Mapping[str, Any]) -> str:
    return (
        f"{order['k']} of {order['n']} outputs differ in another order,"
        f" {order['again_k']} of {order['again_n']} samples when run again at the end"
    )


def _timing(document: Mapping[str, Any]) -> list[str]:
    """A line per device whose latencies do not count, with the first reason of each cell.

    Emulated ones never count, so there it is no news.
    """
    notes = {a["id"]: a.get("notes", []) for a in document["attempts"]}
    spoilt: dict[str, list[str]] = {}
    for row in document["rows"]:
        for cell in [] if row["emulated"] else row.get("cells", []):
            if cell["status"] == "ok" and not cell["timing_valid"]:
                why = notes.get(cell["attempt"]) or ["no reason recorded"]
                spoilt.setdefault(row["device"], []).append(why[0])
    return [
        f"timing invalid on {device} in {len(why)} cell(s): {why[0]}"
        + (f" (and {others} other reasons)" if (others := len(set(why)) - 1) else "")
        for device, why in spoilt.items()
    ]


def _device(name: str, emulated: bool) -> str:
    return f"{name} (emulated)" if emulated else name


def _verdict_line(console: Console, before: str, verdict: str, after: str) -> None:
    line = Text(fmt.printable(before))
    line.append(fmt.words(verdict), STYLES[verdict])
    line.append(fmt.printable(after))
    console.print(line, soft_wrap=True)


def _line(console: Console, text: str = "", style: str = "") -> None:
    console.print(Text(fmt.printable(text), style), soft_wrap=True)
