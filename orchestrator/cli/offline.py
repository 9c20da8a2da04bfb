"""pack and ingest: cells for devices that the farm cannot reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import (
    AsJson,
    RunId,
    StoreFolder,
    notice,
    print_json,
    print_text,
    store_folder,
)
from orchestrator.errors import InputError
from orchestrator.offline.outstanding import counted

_PACK = """Pack waiting cells into an archive to run elsewhere.

It is run by hand on a device out of the farm's reach.

The cells are out until `assay ingest` brings their result, or --cancel takes them back.

Example: assay pack --cells 'customer-pi-*' --out /media/stick
"""
_INGEST = """Verify an archive that came back and store its results.

Their attempts are marked offline.

Example: assay ingest assay-result-3f2a91c0.tar.gz && assay resume
"""


def register(app: typer.Typer) -> None:
    app.command(help=_PACK, rich_help_panel="Run")(pack)
    app.command(help=_INGEST, rich_help_panel="Run")(ingest)


def pack(
    run: RunId = None,
    cells: Annotated[
        list[str] | None,
        typer.Option("--cells", metavar="GLOB", help="Cells whose ID matches; repeatable."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The unit, where the cells may go to several."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the archive.")
    ] = Path(),
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Take packed cells back instead; they wait again.")
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.offline import pack as packing
    from orchestrator.store.database import Store

    if bool(cells) == cancel:
        raise InputError("E-USAGE", "give either --cells or --cancel", fix="see: assay pack --help")
    with Store.open(store_folder(store), readonly=True) as opened:  # makes none where none is
        run_id = opened.run(run).id
    with Store.open(store_folder(store)) as opened:
        if cancel:
            back = packing.cancel(opened, run_id, device)
            if as_json:
                print_json({"schema": "assay.unpacked/1", "run": run_id, "packs": back})
            else:
                print_text(f"{counted(sum(back.values()))} of {run_id} taken back")
            return
        packed = packing.pack(opened, run_id, cells or [], out, device=device)
    if as_json:
        print_json(
            {
                "schema": "assay.packed/1",
                "run": run_id,
                "archive": str(packed.path),
                "nonce": packed.nonce,
                "device": packed.device,
                "cells": list(packed.cells),
                "kept": dict(packed.kept),
            }
        )
        return
    for cell, why in packed.kept.items():
        notice(f"not packed: {cell}: {why}")
    notice(
        f"{counted(len(packed.cells))} for {packed.device}; there: unpack it, sh run.sh,"
        " and bring its result back to: assay ingest"
    )
    print_text(str(packed.path))


def ingest(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="What run.sh wrote.")],
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.offline.ingest import ingest as take_in
    from orchestrator.store.database import Store

    Store.open(store_folder(store), readonly=True).close()  # makes none where none is
    with Store.open(store_folder(store)) as opened:
        done = take_in(opened, result)
    if as_json:
        print_json(
            {
                "schema": "assay.ingested/1",
                "run": done.run,
                "device": done.device,
                "nonce": done.nonce,
                "cells": {
                    cell: {"outcome": outcome, "state": state.value}
                    for cell, (outcome, state) in done.cells.items()
                },
                "left": done.left,
                "not_compared": list(done.untold),
            }
        )
        return
    for cell, (outcome, state) in done.cells.items():
        print_text(f"{cell}  {done.device}  {outcome}  {state}")
    if done.untold:
        names = ", ".join(done.untold)
        print_text(f"not compared with the inventory, for the device does not tell it: {names}")
    rest = f"{counted(done.left)} left" if done.left else "every cell is done"
    print_text(f"{rest}; go on with: assay resume {done.run}")
