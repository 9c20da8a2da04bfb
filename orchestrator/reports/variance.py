"""`assay variance`: pairs that differ and the fleet's spread, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from orchestrator.reports import format as fmt


def render(document: Mapping[str, Any], console: Console) -> None:
    """One block per (model file, input set): equal rows in groups, then the pairs that differ.

    Each pair with its cause, where ``document`` has "causes"; what was "damaged" comes last.
    """
    causes = {(c["a"], c["b"]): c for c in document.get("causes", ())}
    for spread in document["fleet"]:
        key = (spread["model"], spread["file"], spread["inputs"])
        rows = [r for r in document["rows"] if (r["model"], r["file"], r["inputs"]) == key]
        pairs = [p for p in document["pairs"] if (p["model"], p["file"], p["inputs"]) == key]
        counted = _counted(spread["rows"], len(rows))
        _line(console, f"{key[0]}.{key[1]} on {key[2]}: {counted}, {spread['n']} samples")
        _line(console, f"  instability {fmt.rate(spread['instability'])}")
        if lineage := document["lineage"].get(f"{key[0]}.{key[1]}"):
            _line(console, f"  {fmt.lineage(lineage)}")
        groups = same_bits([r["id"] for r in rows], pairs)
        for group in groups:
            _line(console, f"  bit-identical: {', '.join(_who(i) for i in group)}")
        for pair in differing([r["id"] for r in rows], pairs):
            _line(
                console,
                f"  {_who(pair['a'])} / {_who(pair['b'])}: "
                f"bit-exact {fmt.share(pair['bit_exact_rate'], pair['n'])}, "
                f"max LSB {fmt.number(pair['max_lsb'])}, "
                f"decided differently {fmt.rate(pair['disagreement'])}"
                f"{_cause(causes.get((pair['a'], pair['b'])))}",
            )
    for told in document.get("damaged", ()):
        _line(console, f"{told['what']} cannot be read: {told['error']}")


def _counted(answered: int | Sequence[str], rows: int) -> str:
    """``2 of 4 rows answered``, or ``4 rows`` where all did."""
    count = answered if isinstance(answered, int) else len(answered)
    return f"{rows} rows" if count == rows else f"{count} of {rows} rows answered"


def differing(ids: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Pairs that are not equal bit for bit.

    Of a group of equal rows only the first is compared with others: the rest would say the same.
    """
    spoken_for = {id for group in same_bits(ids, pairs) for id in group[1:]}
    return [p for p in pairs if p["bit_exact_rate"] != 1.0 and not spoken_for & {p["a"], p["b"]}]


def _cause(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if "error" in found:
        return f"; cause not told: {found['error']}"
    factors = ", ".join(found["factors"] or ["unknown"])
    return f"; {found['mechanism']} × {factors} ({found['confidence']})"


def same_bits(ids: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Rows whose outputs are equal bit for bit, in groups of two or more, in the rows' order.

    Equality of bytes is transitive, so following equal pairs from a group's first row finds all.
    """
    equal = {(p["a"], p["b"]) for p in pairs if p["bit_exact_rate"] == 1.0}
    groups: list[list[str]] = []
    for id in ids:
        home = next((g for g in groups if (g[0], id) in equal or (id, g[0]) in equal), None)
        if home is None:
            groups.append([id])
        else:
            home.append(id)
    return [g for g in groups if len(g) > 1]


def _who(row_id: str) -> str:
    return row_id.partition("@")[2]


def _line(console: Console, text: str) -> None:
    console.print(fmt.printable(text), markup=False, highlight=False, soft_wrap=True)
