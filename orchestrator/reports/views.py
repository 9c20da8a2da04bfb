"""`assay variance --by …` and `--pair …` (``assay.variance/1``) as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from orchestrator.reports import by_layer, samples
from orchestrator.reports import format as fmt
from orchestrator.reports.columns import columns

Json = Mapping[str, Any]
INTERVALS = "intervals: 95 %"


def render(document: Json, console: Console) -> None:
    """One block per (model file, input set), then what gave no answer and why."""
    told = {"slice": _slices, "pair": _pairs, "answer": _alike, "layer": _layers}
    show: Callable[[Json, Console], None] = told.get(document["by"], _groups)
    for one in document["sets"]:
        head = f"{one['model']}.{one['file']} on {one['inputs']}: {one['n']} samples; {INTERVALS}"
        if document["across_runs"]:
            head += f"; {len(document['runs'])} runs"
        if document["by"] == "layer":
            head = by_layer.head(one)
        _line(console, head, "bold")
        if one["lineage"]:
            _line(console, f"  {fmt.lineage(one['lineage'])}")
        show(one, console)
        _line(console)
    for problem in document["problems"]:
        _line(console, f"no answer: {problem['what']}: {problem['problem']}")


def _alike(one: Json, console: Console) -> None:
    given: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for row in one["rows"]:
        given[row["device"], row["runtime"]].append(row)
    for (device, runtime), rows in given.items():
        times = sum(len(row["runs"]) for row in rows)
        told = "the same bytes" if len(rows) == 1 else f"{len(rows)} different answers"
        _line(console, f"  {device}/{runtime}: {told} in {times} run{'s' * (times > 1)}")
    if len(one["rows"]) > 1:
        _line(console, f"  all rows: {_spread(one['fleet'])}")
    for ids in one["identical"]:
        _line(console, f"  bit-identical: {', '.join(map(_short, ids))}")
    for pair in one["pairs"]:
        told = pair["problem"] or (
            f"bit-exact {fmt.rate(pair['bit_exact'], level=False)},"
            f" max LSB {fmt.number(pair['max_lsb'])},"
            f" decided differently {fmt.rate(pair['disagreement'], level=False)}"
        )
        _line(console, f"  {_short(pair['a'])} / {_short(pair['b'])}: {told}")


def _groups(one: Json, console: Console) -> None:
    rows = sorted(one["rows"], key=lambda row: (row["group"], row["id"]))
    if one["fp32"]:
        rows = [{**one["fp32"], "group": "FP32 parent", "runtime": fmt.DASH, "device": ""}, *rows]
    headings = (
        "group",
        "row",
        "accuracy",
        "C→I/I→C",
        "disagree",
        "ECE",
        "Brier",
        "NLL",
        "p1 p10/p50/p90",
        "p1<0.5",
        "KLD",
        "TV",
    )
    columns(console, headings, [(row["group"], *_numbers(row)) for row in rows])
    for row in rows:
        if row.get("problem"):
            _line(console, f"  {_who(row)}: {row['problem']}")
    for row in one["rows"]:
        if row["same_as"] is None and row.get("samples"):
            _line(console, f"  samples of {_who(row)} to look at, against FP32:")
            samples.of_row(row["samples"], console)
    heads = dict.fromkeys(
        f"{row['head']}: {row['head_why']}" for row in rows if not row.get("problem")
    )
    for text in heads:
        _line(console, f"  outputs taken for {text}", "dim")
    for group in one["groups"]:
        if len(group["rows"]) > 1:
            _line(console, f"  within {group['group']}: {_spread(group)}")
    if len(one["groups"]) > 1 and len(one["fleet"]["rows"]) > 1:
        _line(console, f"  all rows: {_spread(one['fleet'])}")


def _numbers(row: Json) -> tuple[str, ...]:
    if row.get("problem"):
        return (_who(row), *[fmt.DASH] * 10)
    fp32, calibrated = row["fp32"] or {}, row["calibration"] or {}
    flips = fp32.get("c_to_i"), fp32.get("i_to_c")
    return (
        _who(row),
        fmt.counts_in_range(row["accuracy"]),
        fmt.DASH if None in flips else f"{flips[0]}/{flips[1]}",
        fmt.counts_in_range(fp32.get("disagreement")),
        _estimate(calibrated.get("ece")),
        _estimate(calibrated.get("brier")),
        _estimate(calibrated.get("nll")),
        *_sure(row["confidence"]),
        _estimate(row["kld"]),
        _estimate(row["tv"]),
    )


def _sure(found: Json | None) -> tuple[str, str]:
    """Percentiles of the confidence (their intervals are in the JSON), and the share below 0.5."""
    if found is None:
        return fmt.DASH, fmt.DASH
    percentiles = "/".join(f"{p['value']:.3f}" for p in found["p1_percentiles"])
    return percentiles, fmt.counts_in_range(found["low"])


def _spread(group: Json) -> str:
    if group["problem"]:
        return str(group["problem"])
    votes, worst = group["vote_entropy"], group["worst_pair"]
    parts = [
        f"instability {fmt.rate(group['instability'])}",
        f"unanimity {fmt.rate(group['unanimity'])}",
    ]
    if votes:
        told = _estimate({**votes, "value": votes["mean"]})
        parts.append(f"vote entropy {told}, at most {fmt.number(votes['max'])}")
    if worst["disagreement"]["k"]:
        pair = f"{_short(worst['a'])} / {_short(worst['b'])}"
        parts.append(f"worst pair {pair} {fmt.rate(worst['disagreement'])}")
    return "; ".join(parts)


def _slices(one: Json, console: Console) -> None:
    headings = (
        *("row", "slice", "n", "FP32", "INT8", "change", "C→I/I→C", "disagree"),
        *("Holm p", "ECE", "p1 p10/p50/p90", "p1<0.5"),
    )
    lines = []
    distinct = [row for row in one["rows"] if row["same_as"] is None]
    for row in distinct:
        for s in row["slices"]:
            change = s["change"]
            lines.append(
                (
                    _who(row),
                    f"{s['column']}={s['value']}",
                    str(s["n"]),
                    fmt.counts_in_range(s["fp32"]),
                    fmt.counts_in_range(s["accuracy"]),
                    _change(change) + (" loses" if s["loses"] else ""),
                    f"{change['lost']}/{change['gained']}" if change else fmt.DASH,
                    fmt.counts_in_range(s["disagreement"]),
                    fmt.number(s["p_adjusted"]),
                    _estimate(s["ece"]),
                    *_sure(s["confidence"]),
                )
            )
    columns(console, headings, lines)
    for row in distinct:
        if row["problem"]:
            _line(console, f"  {_who(row)}: {row['problem']}")
        elif row["worst"] and row["worst"]["difference"] < 0:
            worst = row["worst"]
            told = (
                f"{worst['column']}={worst['value']}, "
                f"{_change({**worst['gap'], 'difference': worst['gap']['value']})} from the whole"
            )
            _line(console, f"  {_who(row)}: worst slice {told}")
    for row in one["rows"]:
        if row["same_as"] is not None:
            _line(console, f"  {_who(row)}: bit-identical to {_short(row['same_as'])}")
    lost = sum(s["loses"] for row in distinct for s in row["slices"])
    tried = sum(s["p_loss"] is not None for row in distinct for s in row["slices"])
    if tried:
        _line(console, f"  {lost} of {tried} slices lose accuracy (exact McNemar, Holm at 5 %)")
    if again := one["repeated"]:
        told = f"{again} of {one['n']} samples repeat the input of an earlier one"
        _line(console, f"  NOTE: {told}; a claim counts each input once")


def _layers(one: Json, console: Console) -> None:
    columns(console, *by_layer.table(one))
    for text in by_layer.notes(one):
        _line(console, f"  {text}")


def _pairs(one: Json, console: Console) -> None:
    for pair in one["pairs"]:
        _line(console, f"  {_short(pair['a'])} / {_short(pair['b'])}")
        for name, text in (
            [("cannot be compared", pair["problem"])] if pair["problem"] else _of(pair)
        ):
            _line(console, f"    {name:<22}{text}")
        if pair.get("samples"):
            samples.of_pair(pair["samples"], console)


def _of(pair: Json) -> list[tuple[str, str]]:
    """Of a pair, name and text of each figure; what does not apply is a dash."""
    sure, real, accuracy = pair["confidences"] or {}, pair["real"] or {}, pair["accuracy"]
    near = pair["near_tie"]
    lsb = "; ".join(f"{k}: {n}" for k, n in (pair["lsb_histogram"] or {}).items())
    told = [
        ("bit-exact", fmt.rate(pair["bit_exact"])),
        ("max LSB", fmt.number(pair["max_lsb"])),
        ("mean signed LSB", _estimate(pair["mean_lsb"])),
        ("elements by |LSB|", lsb or fmt.DASH),
        ("decided differently", fmt.rate(pair["disagreement"])),
        ("of it near ties", f"{near['k']}/{near['n']}" if near else fmt.DASH),
        ("Cohen's kappa", _estimate(pair["kappa"])),
        ("accuracy, a - b", _change(accuracy)),
        ("only a / only b right", f"{accuracy['gained']}/{accuracy['lost']}" if accuracy else "–"),
        ("McNemar p", fmt.number(pair["mcnemar_p"])),
        ("mean JSD", _estimate(sure.get("jsd"))),
        ("W1 of p1", _estimate(sure.get("w1"))),
        ("KS of p1", _estimate(sure.get("ks"))),
        ("PSI of p1", _estimate(sure.get("psi"))),
        (
            "real units, a - b",
            f"max {fmt.number(real['max_abs'])}, mean {fmt.number(real['mean_signed'])}, "
            f"RMSE {fmt.number(real['rmse'])}"
            if real
            else fmt.DASH,
        ),
        ("MMD² of p", _mmd(sure.get("mmd"))),
        ("fail certain after", _early(pair["early"])),
    ]
    for output, (a, b) in pair["lattices"].items():
        told.append(
            (f"lattice of {output}", f"{a} and {b} (scale/zero point): compared in real units only")
        )
    return told


def _mmd(found: Json | None) -> str:
    return fmt.DASH if found is None else f"{found['mmd2']:.3g} (permutation p {found['p']:.3g})"


def _early(found: Json) -> str:
    limit = f"{fmt.percent(found['limit'])} %"
    if found["near_ties_first"] is None:
        return f"{fmt.DASH} (no fail at a limit of {limit})"
    return (
        f"{found['near_ties_first']} of {found['n']} samples near ties first,"
        f" {found['own_order']} in their own order (limit {limit})"
    )


def _estimate(value: Json | None) -> str:
    if value is None or value["value"] is None:
        return fmt.DASH
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.3g} (n={value['n']})"
    return f"{value['value']:.3g} ({value['low']:.3g} to {value['high']:.3g})"


def _change(change: Json | None) -> str:
    """A paired difference in percentage points with its interval."""
    if change is None or change["difference"] is None:
        return fmt.DASH
    low, high = 100 * change["low"], 100 * change["high"]
    return f"{100 * change['difference']:+.3g} pp ({low:+.3g} to {high:+.3g}, n={change['n']})"


def _who(row: Json) -> str:
    return _short(row["id"]) if row["device"] else fmt.DASH


def _short(row_id: str) -> str:
    return row_id.partition("@")[2]


def _line(console: Console, text: str = "", style: str = "") -> None:
    console.print(Text(fmt.printable(text), style), soft_wrap=True)
