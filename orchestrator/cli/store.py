"""store upgrade."""

from __future__ import annotations

import typer

from orchestrator.cli.options import AsJson, StoreFolder, print_json, print_text, store_folder

app = typer.Typer(no_args_is_help=True, help="The database and artefacts of a farm.")


@app.callback()
def group() -> None:
    """Keeps `upgrade` a subcommand while it is the only one."""


@app.command()
def upgrade(store: StoreFolder = None, as_json: AsJson = False) -> None:
    """Bring the store to this version's schema. Nothing else ever migrates it.

    Example: assay store upgrade --store /srv/assay
    """
    from orchestrator.store.database import upgrade as migrate

    before, after = migrate(store_folder(store))
    if as_json:
        print_json({"schema": "assay.store-upgrade/1", "from": before, "to": after})
    elif before == after:
        print_text(f"schema {after}: nothing to do")
    else:
        print_text(f"schema {before or 'none'} -> {after}")
