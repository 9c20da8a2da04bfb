"""lineage: where an INT8 file's weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.options import AsJson, print_json, print_text

SHOWN = 5
"""Most constants that the text names; JSON has them all."""

_LINEAGE = """Tell from the weights whether INT8 came from FP32.

nearest-step: every weight within half a step. derived: alike, not within half a step. unrelated.
not-fp32: the parent is quantised itself. inconclusive. Each of them is an answer and exits 0.

Example: assay lineage net.int8.tflite net.fp32.onnx --json
"""


def register(app: typer.Typer) -> None:
    app.command(help=_LINEAGE, rich_help_panel="Compare")(lineage)


def lineage(
    int8: Annotated[Path, typer.Argument(metavar="INT8", help="Quantised .tflite or .onnx.")],
    fp32: Annotated[Path, typer.Argument(metavar="FP32", help="Its supposed float parent.")],
    as_json: AsJson = False,
) -> None:
    from orchestrator.matrix.loader import sha256_file
    from orchestrator.models.lineage import compare
    from orchestrator.reports.format import printable

    found = compare(int8, fp32)
    if as_json:
        files = {
            role: {"path": str(path), "sha256": sha256_file(path)}
            for role, path in (("int8", int8), ("fp32", fp32))
        }
        print_json({"schema": "assay.lineage/1", **files, **found})
        return
    print_text(printable(f"{found['verdict']}: {found['reason']}"))
    print_text(
        f"  {found['matched']} of {found['tensors']} weight tensors matched,"
        f" {found['biases_within']} of {found['biases']} bias tensors within half a step"
    )
    off = [m for m in found["table"] if m["within"] != m["n"]]
    for match in off[:SHOWN]:
        print_text(printable(f"  {_told(match)}"))
    if len(off) > SHOWN:
        print_text(f"  and {len(off) - SHOWN} more that are not nearest steps: see --json")


def _told(match: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, match["shape"]))
    name = f"{match['role']} {match['name']} [{shape}]"
    if match["parent"] is None:
        return f"{name}: no counterpart of its shape"
    return f"{name}: {match['within']} of {match['n']}, worst {match['worst']:.5g} steps"
