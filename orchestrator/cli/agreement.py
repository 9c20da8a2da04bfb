"""agreement, history: the questions that the store answers across runs."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, RunId, StoreFolder, print_json, store_folder
from orchestrator.errors import Exit


def register(app: typer.Typer) -> None:
    app.command(help=_AGREEMENT, rich_help_panel="Compare")(agreement)
    app.command(help=_HISTORY, rich_help_panel="Look")(history)


_AGREEMENT = """Show how devices repeat themselves and agree.

And what each factor alone changes.

Attribute agreement within unit, between units, classes, runtimes and versions, against the
reference and the truth; and matched pairs in which exactly one factor differs. What cannot be read
is named, the rest still answers, and the exit code is 3.

Example: assay agreement --across-runs --model 'digits_*'
"""
_HISTORY = """Show what all runs saw of a device or a model.

And what changed its answers since.

Example: assay history desk-pi --json
"""


def agreement(
    run: RunId = None,
    model: Annotated[
        str, typer.Option(metavar="GLOB", help="Only models, or model.file, that fit.")
    ] = "*",
    across_runs: Annotated[
        bool,
        typer.Option(
            "--across-runs",
            help="All runs that answered what RUN asked; without RUN, all there is.",
        ),
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> int:
    from orchestrator.analysis.agreement import agreement as agree
    from orchestrator.store.database import Store

    with Store.open(store_folder(store), readonly=True) as opened:
        document = agree(opened, run, across=across_runs, model=model)
    if as_json:
        print_json(document)
    else:
        from rich.console import Console

        from orchestrator.reports.agreement import render

        render(document, Console())
    return Exit.INFRA if document["damaged"] else Exit.PASS


def history(
    name: Annotated[
        str, typer.Argument(metavar="DEVICE|MODEL", help="A device, a model, or model.file.")
    ],
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> int:
    from orchestrator.analysis.history import history as told
    from orchestrator.store.database import Store

    with Store.open(store_folder(store), readonly=True) as opened:
        document = told(opened, name)
    if as_json:
        print_json(document)
    else:
        from rich.console import Console

        from orchestrator.reports.history import render

        render(document, Console())
    return Exit.INFRA if document["damaged"] else Exit.PASS
