"""layers: at which operators two devices part."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import (
    AsJson,
    OfRun,
    StoreFolder,
    TwoRows,
    print_json,
    store_folder,
    two_rows,
)

_LAYERS = """Find the operators at which two rows begin to differ.

Both devices are visited again.

A and B are rows as `assay variance` prints them, device/runtime. The first line names the first
operator whose output differs, and every operator that differs on equal inputs. --taps adds what
quantisation does to each layer of A.

Example: assay layers host/litert-t1 host/litert-ref
"""


def register(app: typer.Typer) -> None:
    app.command(help=_LAYERS, rich_help_panel="Compare")(layers)


def layers(
    rows: TwoRows,
    run: OfRun = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL.FILE",
            help="Which file (or a glob), where the rows differ on several.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, max=1000, help="How many samples to look into.")
    ] = 8,
    taps: Annotated[
        bool,
        typer.Option(
            "--taps",
            help="Also compare A's layers with the FP32 parent's: local and accumulated error.",
        ),
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.analysis.localise import localise
    from orchestrator.runs.run import Run
    from orchestrator.store.database import Store

    root = store_folder(store)
    wanted, a, b = two_rows(rows, run, "assay layers")
    with Store.open(root, readonly=True) as opened:
        recorded = Run(opened, wanted)
        found = localise(root, recorded, a, b, model=model, most=samples, tapped=taps).to_json()
    from orchestrator.reports import layers as report

    if as_json:
        print_json(found | {"headline": report.headline(found)})
        return
    from rich.console import Console

    report.render(found, Console())
