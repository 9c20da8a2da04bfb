"""explain: why two rows of a run differ."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import (
    AsJson,
    OfRun,
    StoreFolder,
    print_json,
    print_text,
    store_folder,
    two_rows,
)
from orchestrator.errors import Exit

_EXPLAIN = """Say why two rows differ: mechanism, factor, evidence, fix.

A and B are rows as `assay variance` names them (device/runtime), or two devices, which are then
compared under each runtime that both have. "unknown" is an answer.

Example: assay explain local qemu-haswell --model 'digits_ds.*'
"""


def register(app: typer.Typer) -> None:
    app.command(help=_EXPLAIN, rich_help_panel="Compare")(explain)


def explain(
    rows: Annotated[
        list[str],
        typer.Argument(
            metavar="A B", help="Two rows (device/runtime), or two devices.", show_default=False
        ),
    ],
    run: OfRun = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="GLOB", help="Only these model files.")
    ] = "*",
    brief: Annotated[bool, typer.Option("--brief", help="One line for each file.")] = False,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="Visit both devices again and find the first operator that differs."
        ),
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> int:
    from orchestrator.analysis.explain import Explainer, explained, unreadable
    from orchestrator.errors import NotAvailableError
    from orchestrator.reports.explain import line, page
    from orchestrator.store.database import Store

    root = store_folder(store)
    wanted, a, b = two_rows(rows, run, "assay explain")
    with Store.open(root, readonly=True) as opened:
        explainer = Explainer(opened, wanted)
        answers = list(explained(explainer, a, b, model))
        run_id, damaged = explainer.run.id, unreadable(explainer)
        found = [x for x in answers if not isinstance(x, NotAvailableError)]
        if layers:
            from orchestrator.analysis.located import located

            found = [located(root, explainer, pair) for pair in found]
    missing = [x for x in answers if isinstance(x, NotAvailableError)]
    if as_json:
        print_json(
            {
                "schema": "assay.explain/2",
                "run": run_id,
                "pairs": found,
                "not_compared": [{"id": x.id, "what": x.what} for x in missing],
                "damaged": damaged,
            }
        )
    else:
        blocks = [line(x) if brief else "\n".join(page(x)) for x in found]
        blocks += [f"not compared: {x.what}" for x in missing]
        blocks += [f"{x['what']} cannot be read: {x['error']}" for x in damaged]
        print_text(("\n" if brief else "\n\n").join(blocks) or "nothing to compare")
    if damaged:
        return Exit.INFRA
    return Exit.PASS if found else Exit.INCONCLUSIVE
