"""`assay explain`: one line for each pair, or a page for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.reports import format as fmt
from orchestrator.reports.layers import headline


def line(found: Mapping[str, Any]) -> str:
    """Mechanism, changed factor and size of one pair on one file."""
    what = f"{found['model']}.{found['file']} {found['a']} / {found['b']}: {found['mechanism']}"
    if found["mechanism"] == "identical":
        return f"{what} ({found['difference']['n']} samples)"
    by = ", ".join(found["factors"] or []) or ("nothing" if found["factors"] == [] else "unknown")
    return f"{what} × {by} ({found['confidence']}), {_size(found['difference'])}"


def page(found: Mapping[str, Any]) -> list[str]:
    """Everything that is known of one pair on one file."""
    lines = [line(found)]
    lines += [f"  because  {text}" for text in found["because"]]
    if found["blamed"]:
        lines.append(f"  blamed   {found['blamed']}")
    if found["fix"]:
        lines.append(f"  fix      {found['fix']}")
    if layers := found.get("layers"):
        lines.append(f"  layers   {layers['what'] if 'error' in layers else headline(layers)}")
    for name, (a, b) in found["changed"].items():
        lines.append(f"  differs  {name}: {a or 'unknown'} / {b or 'unknown'}")
    told = found["difference"]
    lines.append(
        f"  bits     {told['bit_exact']} of {told['n']} samples equal; "
        f"{told['elements_different']} of {told['elements']} elements differ"
    )
    if told["by_one_step"] is not None and told["elements_different"]:
        lines.append(
            f"  codes    max LSB {told['max_lsb']}, {told['by_one_step']} by one step, "
            f"{told['larger_in_a']} larger in the first, {told['larger_in_b']} in the second"
        )
    if told["right"] is not None:
        lines.append(f"  right    {told['right'][0]} / {told['right'][1]} of {told['n']}")
    lines.append(f"  attempts {', '.join(attempt[:12] for attempt in found['attempts'])}")
    return lines


def _size(told: Mapping[str, Any]) -> str:
    lsb = "" if told["max_lsb"] is None else f"max LSB {told['max_lsb']}, "
    return f"{lsb}decided differently {fmt.rate(told['disagreement'])}"
