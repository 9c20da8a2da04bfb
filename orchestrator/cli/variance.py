"""variance: how rows, pairs, groups and slices of a run differ."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.judged import judged
from orchestrator.cli.options import AsJson, RunId, StoreFolder, print_json, store_folder
from orchestrator.errors import InputError

_HELP = """How rows, pairs and the fleet differ, from what the store holds of a run.

Plain: rows that are bit-identical, and the pairs that are not. --by: accuracy, calibration and
confidence of every row with their intervals, and the spread within each group; by slice, where
INT8 loses. --pair: everything about two rows, which patterns choose by device, class, runtime,
"device/runtime" or ID.

Example: assay variance --by slice

Example: assay variance --pair 'qemu-a72*' 'qemu-haswell*'
"""


class By(StrEnum):
    DEVICE = "device"
    CLASS = "class"
    RUNTIME = "runtime"
    SLICE = "slice"


def register(app: typer.Typer) -> None:
    app.command(help=_HELP)(variance)


def variance(
    run: RunId = None,
    by: Annotated[By | None, typer.Option(help="Group rows, or slice each.")] = None,
    pair: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Two rows, in full.")
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    if by is not None and pair is not None:
        raise InputError("E-USAGE", "--by and --pair are two questions", mend="ask one at a time")
    document = _kept(run, store) if by is None and pair is None else _view(run, store, by, pair)
    if as_json:
        print_json(document)
        return
    from rich.console import Console

    from orchestrator.reports import variance as kept
    from orchestrator.reports import views

    render = kept.render if by is None and pair is None else views.render
    render(document, Console())


def _kept(run: str | None, folder: Path | None) -> dict[str, Any]:
    document = judged(run, folder)
    causes = _causes(document, folder)
    parts = ("schema", "assay_version", "run", "rows", "pairs", "fleet", "coverage", "latency")
    # A document of before lineages were told has none, and every loss in it is unexplained.
    kept = {part: document[part] for part in parts}
    return kept | {"lineage": document.get("lineage", {}), "causes": causes}


def _causes(document: dict[str, Any], folder: Path | None) -> list[dict[str, Any]]:
    """Why the pairs that are shown differ, or why that cannot be told of a pair ("error")."""
    from orchestrator.errors import AssayError
    from orchestrator.questions.explain import Explainer
    from orchestrator.reports.variance import differing
    from orchestrator.store.database import Store

    rows = {r["id"]: r for r in document["rows"]}
    files = dict.fromkeys((r["model"], r["file"], r["inputs"]) for r in rows.values())
    causes = []
    with Store.open(store_folder(folder), readonly=True) as store:
        explainer = Explainer(store, document["run"]["id"])
        for file in files:
            ids = [i for i, r in rows.items() if (r["model"], r["file"], r["inputs"]) == file]
            pairs = [p for p in document["pairs"] if (p["model"], p["file"], p["inputs"]) == file]
            for pair in differing(ids, pairs):
                ends = (f"{rows[pair[s]]['device']}/{rows[pair[s]]['runtime']}" for s in "ab")
                try:
                    told = explainer.explain(file, *ends)
                except AssayError as error:
                    causes.append({"a": pair["a"], "b": pair["b"], "error": str(error)})
                    continue
                keys = ("mechanism", "factors", "confidence", "blamed")
                causes.append({"a": pair["a"], "b": pair["b"], **{k: told[k] for k in keys}})
    return causes


def _view(
    run: str | None, folder: Path | None, by: By | None, pair: tuple[str, str] | None
) -> dict[str, Any]:
    from orchestrator.store.database import Store
    from orchestrator.views.groups import grouped
    from orchestrator.views.load import load
    from orchestrator.views.pairs import paired
    from orchestrator.views.slices import sliced

    with Store.open(store_folder(folder), readonly=True) as store:
        loaded = load(store, run)
    if pair is not None:
        return paired(loaded, *pair)
    return sliced(loaded) if by is By.SLICE else grouped(loaded, by or By.DEVICE)
