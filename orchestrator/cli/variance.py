"""variance: how rows, pairs, groups and slices of a run differ."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.options import AsJson, RunId, StoreFolder, print_json, store_folder
from orchestrator.cli.verdict import judged
from orchestrator.errors import InputError

_HELP = """Show how rows, pairs and the fleet of a run differ.

Plain: rows that are bit-identical, and the pairs that are not. --by: accuracy, calibration and
confidence of every row with their intervals, and the spread within each group; by slice, where
INT8 loses; by layer, what quantisation does to each (devices are asked again, those of --pair alone
if given). --pair: everything about two rows, which patterns choose by device, class, runtime,
"device/runtime" or ID, with the samples to look at. --across-runs: the same of every run; an answer
that a unit gives again is one row, another answer another one, and a pair may be of two runs.

Example: assay variance --by slice

Example: assay variance --pair 'qemu-a72*' 'qemu-haswell*' --samples 20

Example: assay variance --across-runs --pair pi4 pi4
"""


class By(StrEnum):
    DEVICE = "device"
    CLASS = "class"
    RUNTIME = "runtime"
    SLICE = "slice"
    LAYER = "layer"


def register(app: typer.Typer) -> None:
    app.command(help=_HELP, rich_help_panel="Compare")(variance)


def variance(
    run: RunId = None,
    by: Annotated[By | None, typer.Option(help="Group rows, slice each, or by layer.")] = None,
    pair: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Two rows, in full.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="List so many samples, worst first: of a pair, or of each row against FP32."
            " By layer: look into so many. [default: 10 of a pair, 8 by layer]",
        ),
    ] = None,
    across_runs: Annotated[
        bool,
        typer.Option(
            "--across-runs",
            help="All runs that answered what RUN asked; without RUN, all there is.",
        ),
    ] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    if by is By.LAYER:
        _show(_layers(run, store, pair, samples, across_runs), as_json)
        return
    if by is not None and pair is not None:
        raise InputError("E-USAGE", "--by and --pair are two questions", fix="ask one at a time")
    if samples is not None and pair is None and by in (None, By.SLICE):
        raise InputError(
            "E-USAGE",
            "--samples lists samples of a pair or of rows",
            fix="add --pair A B, or --by device",
        )
    plain = by is None and pair is None and not across_runs
    document = _kept(run, store) if plain else _view(run, store, by, pair, samples, across_runs)
    _show(document, as_json, plain=plain)


def _show(document: dict[str, Any], as_json: bool, *, plain: bool = False) -> None:
    if as_json:
        print_json(document)
        return
    from rich.console import Console

    from orchestrator.reports import variance as kept
    from orchestrator.reports import views

    (kept.render if plain else views.render)(document, Console())


def _layers(
    run: str | None,
    folder: Path | None,
    pair: tuple[str, str] | None,
    samples: int | None,
    across: bool,
) -> dict[str, Any]:
    from orchestrator.analysis.by_layer import MOST, by_layer

    if across:
        what = "--by layer asks the devices of one run"
        raise InputError("E-USAGE", what, fix="leave out --across-runs")
    if samples == 0:
        raise InputError("E-USAGE", "--by layer looks into a sample at least", fix="--samples 1")
    return by_layer(store_folder(folder), run, pair, MOST if samples is None else samples)


def _kept(run: str | None, folder: Path | None) -> dict[str, Any]:
    document = judged(run, folder)
    causes, damaged = _causes(document, folder)
    parts = ("schema", "assay_version", "run", "rows", "pairs", "fleet", "coverage", "latency")
    # A document of before lineages were told has none, and every loss in it is unexplained.
    kept = {part: document[part] for part in parts}
    told = {"lineage": document.get("lineage", {}), "causes": causes, "damaged": damaged}
    return kept | told


def _causes(
    document: dict[str, Any], folder: Path | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Why the pairs that are shown differ, or why that cannot be told of a pair ("error").

    And what could not be read for it.
    """
    from orchestrator.analysis.explain import Explainer, unreadable
    from orchestrator.errors import AssayError
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
        return causes, unreadable(explainer)


def _view(
    run: str | None,
    folder: Path | None,
    by: By | None,
    pair: tuple[str, str] | None,
    samples: int | None,
    across: bool,
) -> dict[str, Any]:
    from orchestrator.analysis.rows_across import load_across
    from orchestrator.analysis.rows_alike import alike
    from orchestrator.analysis.rows_groups import grouped
    from orchestrator.analysis.rows_load import load
    from orchestrator.analysis.rows_pairs import paired
    from orchestrator.analysis.rows_samples import SHOWN
    from orchestrator.analysis.rows_slices import sliced
    from orchestrator.store.database import Store

    with Store.open(store_folder(folder), readonly=True) as store:
        loaded = load_across(store, run) if across else load(store, run)
    if pair is not None:
        return paired(loaded, *pair, SHOWN if samples is None else samples)
    if by is None:
        return alike(loaded)
    return sliced(loaded) if by is By.SLICE else grouped(loaded, by, samples or 0)
