"""plan, run, submit, resume: the commands that move work."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import (
    VERDICT_EXIT,
    AsJson,
    MatrixFile,
    RunId,
    Select,
    StoreFolder,
    notice,
    print_json,
    print_text,
    store_folder,
)
from orchestrator.errors import Exit, InputError

if TYPE_CHECKING:
    from orchestrator.coordinator.events import Progress
    from orchestrator.coordinator.loop import Stop
    from orchestrator.fanout.executor import Executor
    from orchestrator.matrix.inventory import Inventory
    from orchestrator.matrix.plan import Cell


class Engine(StrEnum):
    RAY = "ray"
    INPROCESS = "inprocess"


ExecutorKind = Annotated[
    Engine,
    typer.Option(
        "--executor",
        envvar="ASSAY_EXECUTOR",
        help="ray (RAY_ADDRESS joins a cluster) or inprocess (threads, for a debugger).",
    ),
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Where the report goes; .json, .xml (JUnit) and .md choose the format."
        " [default: STORE/reports/RUN.html]",
        show_default=False,
    ),
]

ByClassFlag = Annotated[
    bool,
    typer.Option(
        "--by-class",
        help="One device of each equivalence class (assay classes) in full, spot checks of others.",
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        min=0.5,
        max=0.9999,
        help="With --by-class: that a spot check sees --share. [default: 0.95]",
        show_default=False,
    ),
]
Share = Annotated[
    float | None,
    typer.Option(
        min=0.0001,
        max=0.5,
        help="With --by-class: share of differing samples to see. [default: 0.01]",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    app.command(help=_PLAN, rich_help_panel="Run")(plan)
    app.command(help=_RUN, rich_help_panel="Run")(run)
    app.command(help=_SUBMIT, rich_help_panel="Run")(submit)
    app.command(help=_RESUME, rich_help_panel="Run")(resume)


_PLAN = """Print a matrix's cells and the total work; change nothing.

Whatever `run` would refuse before it asks a device is refused: all models and inputs are read.

With --by-class also which units would represent others, by their fingerprints, and the cost saved.

Example: assay plan matrices/quickstart.yaml --select '*-repeat:*'
"""
_RUN = """Queue a matrix, run it, judge it, and write the report.

Example: assay run matrices/virtual-farm.yaml --select 'qemu-a72-*' --json
"""
_SUBMIT = """Queue a matrix for later and print the run's ID.

Example: assay submit matrices/quickstart.yaml && assay resume
"""
_RESUME = """Run what is left of a run, then judge it.

Queued, interrupted, or after its coordinator was killed.

Example: assay resume 20261121
"""


def plan(
    matrix: MatrixFile,
    select: Select = None,
    by_class: ByClassFlag = False,
    confidence: Confidence = None,
    share: Share = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    wanted = _wanted(by_class, confidence, share)
    if wanted is not None:
        from orchestrator.cli.by_class import show

        show(matrix, select or [], *wanted, store_folder(store), as_json)
        return
    from orchestrator.cli.rehearsal import rehearse
    from orchestrator.matrix.loader import load_matrix
    from orchestrator.matrix.plan import expand
    from orchestrator.matrix.plan import select as choose
    from orchestrator.matrix.work import total_work

    loaded = load_matrix(matrix)
    cells = choose(expand(loaded.matrix, loaded.inventory).cells, select or [])
    work = total_work(loaded.matrix, cells)
    rehearse(matrix, select or [])
    if as_json:
        rows = [{**vars(c), "inferences": work.inferences[c.id]} for c in cells]
        print_json({"schema": "assay.plan/1", "cells": rows, "inferences": work.total})
        return
    for cell in cells:
        print_text(cell.id)
    print_text(f"{_sized(cells)}, {work.total:,} inferences")


def _sized(cells: Sequence[Cell]) -> str:
    count, devices = len(cells), len({c.slot for c in cells})
    return (
        f"{count} cell{'' if count == 1 else 's'} on {devices} device{'' if devices == 1 else 's'}"
    )


def run(
    matrix: MatrixFile,
    select: Select = None,
    by_class: ByClassFlag = False,
    confidence: Confidence = None,
    share: Share = None,
    store: StoreFolder = None,
    executor: ExecutorKind = Engine.RAY,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> int:
    from orchestrator.cli.by_class import divided
    from orchestrator.cli.status import check_report
    from orchestrator.run import enqueue, finish
    from orchestrator.run import plan as plan_run
    from orchestrator.store.database import Store

    wanted = _wanted(by_class, confidence, share)
    planned = plan_run(matrix, select or [])
    check_report(report)
    with (
        Store.open(store_folder(store)) as opened,
        _fan(executor, planned.inventory, planned.devices, store_folder(store)) as fan,
    ):
        if wanted is not None:
            planned = divided(opened, planned, *wanted)
        run_id = enqueue(opened, planned, fan.compute)
        with _interruptible() as stop, _progress(len(planned.cells)) as progress:
            progress.message(f"run {run_id}")
            document = finish(opened, run_id, fan, progress, stop)
    return _answer(document, run_id, store_folder(store), report, as_json)


def submit(
    matrix: MatrixFile,
    select: Select = None,
    by_class: ByClassFlag = False,
    confidence: Confidence = None,
    share: Share = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.cli.by_class import divided
    from orchestrator.run import enqueue
    from orchestrator.run import plan as plan_run
    from orchestrator.staging.stage import here
    from orchestrator.store.database import Store

    wanted = _wanted(by_class, confidence, share)
    planned = plan_run(matrix, select or [])
    with Store.open(store_folder(store)) as opened:
        if wanted is not None:
            planned = divided(opened, planned, *wanted)
        run_id = enqueue(opened, planned, here)
    if as_json:
        print_json({"schema": "assay.submitted/1", "run": run_id, "cells": len(planned.cells)})
    else:
        print_text(run_id)


def resume(
    run: RunId = None,
    store: StoreFolder = None,
    executor: ExecutorKind = Engine.RAY,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> int:
    from orchestrator.cli.status import check_report
    from orchestrator.run import finish
    from orchestrator.runs.run import Run
    from orchestrator.store.database import Store

    with Store.open(store_folder(store), readonly=True) as opened:  # makes none where none is
        run_id = opened.run(run).id
    check_report(report)
    with Store.open(store_folder(store)) as opened:
        frozen = Run(opened, run_id).frozen
        with (
            _interruptible() as stop,
            _fan(executor, frozen.inventory, frozen.devices, store_folder(store)) as fan,
            _progress(len(opened.cells(run_id))) as progress,
        ):
            document = finish(opened, run_id, fan, progress, stop)
    return _answer(document, run_id, store_folder(store), report, as_json)


def _wanted(
    by_class: bool, confidence: float | None, share: float | None
) -> tuple[float, float] | None:
    """Confidence and share of the spot checks, None without any. Raises InputError E-USAGE."""
    if by_class:
        return 0.95 if confidence is None else confidence, 0.01 if share is None else share
    if confidence is None and share is None:
        return None
    raise InputError("E-USAGE", "--confidence and --share are of spot checks", fix="add --by-class")


def _answer(
    document: dict[str, Any] | None,
    run_id: str,
    folder: Path,
    report: Path | None,
    as_json: bool,
) -> int:
    from orchestrator.cli.status import show

    if document is None:
        notice(f"assay: interrupted; go on with: assay resume {run_id}")
        return Exit.INTERRUPTED
    show(document, folder, report, as_json)
    return VERDICT_EXIT[document["verdict"]]


@contextmanager
def _fan(
    kind: Engine, inventory: Inventory, devices: Sequence[str], folder: Path
) -> Iterator[Executor]:
    from orchestrator.store.farm import farm_id

    spool, hubs = (folder / "spool").absolute(), inventory.hubs(devices)
    fan: Executor
    if kind is Engine.RAY:
        from orchestrator.fanout.cluster import Cluster

        fan = Cluster(devices, spool, hubs=hubs, farm=farm_id(folder))
    else:
        from orchestrator.fanout.executor import refuse_hubs
        from orchestrator.fanout.inprocess import InProcess

        refuse_hubs(hubs)
        fan = InProcess(spool / "hub-0")  # where the first of Ray's hubs would spool
    try:
        yield fan
    finally:
        fan.close()


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    from rich.console import Console

    from orchestrator.reports.progress import progress_for

    progress = progress_for(Console(stderr=True))
    progress.start(total)
    try:
        yield progress
    finally:
        progress.stop()


@contextmanager
def _interruptible() -> Iterator[Stop]:
    """First Ctrl-C: no new cells, running ones end. Second: running ones are cancelled.

    SIGTERM and the SIGHUP of a terminal that is closed count the same, unless SIGHUP is ignored
    already (nohup). Once no cell is left there is nothing to drain, and Ctrl-C interrupts at
    once, as it does before anything is queued.
    """
    from orchestrator.coordinator.loop import Stop

    stop = Stop()

    def asked(signum: int, frame: object) -> None:
        if stop.worked_off.is_set():
            raise KeyboardInterrupt
        if stop.draining.is_set():
            stop.now.set()
        stop.draining.set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {s: signal.signal(s, asked) for s in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
