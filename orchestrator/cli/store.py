"""store upgrade, store check, store adopt."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, StoreFolder, print_json, print_text, store_folder
from orchestrator.errors import Exit, InputError

app = typer.Typer(no_args_is_help=True, help="Check, upgrade and adopt the database and artefacts.")


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


@app.command()
def check(
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Move spoilt files to STORE/quarantine.")
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> int:
    """Check every file, record and the database for damage.

    Files against their hashes, records against their digests; the database checks itself. What
    needs a damaged file or record is named. A damaged file that was moved away is stored anew by
    the next run that makes the same content.

    Example: assay store check --quarantine
    """
    from orchestrator.store.check import check as look
    from orchestrator.store.database import Store

    with Store.open(store_folder(store), readonly=True) as opened:
        found = look(opened, quarantine=quarantine)
    rows = found.rows
    if as_json:
        print_json(
            {
                "schema": "assay.store-check/1",
                "files": found.files,
                "bytes": found.bytes,
                "unused": found.unused,
                "damaged": [
                    {
                        "sha256": d.sha256,
                        "error_id": d.error.id,
                        "error": str(d.error),
                        "needed_by": list(d.needed_by),
                        "moved": str(d.moved) if d.moved else None,
                    }
                    for d in found.damaged
                ],
                "rows": rows.checked,
                "unwitnessed": rows.unwitnessed,
                "damaged_rows": [
                    {"what": what, "error_id": error.id, "error": str(error)}
                    for what, error in rows.damaged.items()
                ],
            }
        )
    else:
        for error in rows.damaged.values():
            print_text(str(error))
        for d in found.damaged:
            print_text(f"{d.error} needed by: {', '.join(d.needed_by) or 'nothing'}")
            if d.moved:
                print_text(f"  moved to {d.moved}")
        print_text(
            f"{found.files:,} files, {found.bytes / 1e6:,.1f} MB, {found.unused} of them unused;"
            f" {len(found.damaged)} damaged"
        )
        note = f", {rows.unwitnessed} attempts unwitnessed" if rows.unwitnessed else ""
        print_text(f"{rows.checked:,} records; {len(rows.damaged)} damaged{note}")
    return Exit.INFRA if found.damaged or rows.damaged else Exit.PASS


@app.command()
def adopt(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> int:
    """Make this copy of a store the one that devices obey.

    They refuse every other from now on.

    For E-STORE-COPY: two copies of a store are in use, or a backup was restored while the store
    that it came from is still there. Nothing of the other copy is taken over.

    Example: assay store adopt --yes --store /srv/assay
    """
    from orchestrator.store.database import Store
    from orchestrator.store.place import here, shown

    folder = store_folder(store)
    Store.open(folder, readonly=True).close()  # makes none where none is
    place = here(folder)
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("E-USAGE", "nobody is there to be asked", fix="add --yes")
        what = f"Devices will refuse every copy of this store but the one at {shown(place)}. Adopt?"
        if not typer.confirm(what, err=True):
            return Exit.INTERRUPTED
    with Store.open(folder) as opened:
        made = opened.adopt()
    if as_json:
        print_json(
            {
                "schema": "assay.store-adopt/1",
                "place": shown(place),
                "incarnation": made.incarnation,
                "generation": made.generation,
            }
        )
    else:
        print_text(f"generation {made.generation}: the store at {shown(place)} goes on")
    return Exit.PASS
