"""status, logs, signoff, report, version: the commands that only look."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EISDIR
from fnmatch import fnmatchcase
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.options import (
    VERDICT_EXIT,
    AsJson,
    RunId,
    StoreFolder,
    notice,
    print_data,
    print_json,
    print_text,
    store_folder,
)
from orchestrator.cli.verdict import judged
from orchestrator.errors import InputError
from orchestrator.offline.outstanding import counted
from orchestrator.reports.format import printable


def register(app: typer.Typer) -> None:
    app.command(help=_STATUS, rich_help_panel="Look")(status)
    app.command(help=_LOGS, rich_help_panel="Look")(logs)
    app.command(help=_SIGNOFF, rich_help_panel="Sign off")(signoff)
    app.command(help=_REPORT, rich_help_panel="Sign off")(report)
    app.command(help=_VERSION, hidden=True)(version)


_STATUS = """Show what a run has done and what is left.

The newest run unless RUN is given; --all lists the runs.

Example: assay status --json
"""
_LOGS = """List every attempt of a run.

Cell, unit, outcome, duration, and the error where there was one.

Example: assay logs --select 'qemu-a53-*'
"""
_SIGNOFF = """Judge a run again, under its own policy or another.

Example: assay signoff --policy matrices/policies/default.yaml
"""
_REPORT = """Write the report of a run.

HTML for people; JUnit XML for a CI system, Markdown for a pull request, JSON for programs.

Example: assay report --out /tmp/report.html

Example: assay report --format junit --out assay.xml
"""
_VERSION = """Print the version.

Example: assay version --json
"""


def status(
    run: RunId = None,
    store: StoreFolder = None,
    all_runs: Annotated[bool, typer.Option("--all", help="List the newest runs.")] = False,
    as_json: AsJson = False,
) -> None:
    from orchestrator.store.readonly import glance

    with glance(store_folder(store)) as reader:
        runs = reader.runs() if all_runs else [reader.run(run)]
        leases = reader.leases()
        packs = [pack for r in runs for pack in reader.packs(r.id)]
    if as_json:
        print_json(
            {
                "schema": "assay.status/1",
                "runs": [_run_json(r) for r in runs],
                "leases": [
                    {"device": x.device, "token": x.token, "host": x.owner.host, "pid": x.owner.pid}
                    for x in leases
                ],
                "packs": [
                    {
                        "run": p.run,
                        "device": p.device,
                        "nonce": p.nonce,
                        "packed_unix": p.created,
                        "cells": list(p.out.values()),
                    }
                    for p in packs
                ],
            }
        )
        return
    for info in runs:
        cells = "  ".join(f"{count} {state}" for state, count in info.cells.items() if count)
        done = "  ".join(f"{count} {outcome}" for outcome, count in info.outcomes.items() if count)
        print_text(f"{info.id}  {info.state}  {cells}" + (f"  ({done})" if done else ""))
    for lease in leases:
        print_text(f"leased: {lease.device} to {lease.owner.host} pid {lease.owner.pid}")
    for pack in packs:
        out = counted(len(pack.out))
        print_text(f"packed: {out} for {pack.device}, archive {pack.nonce[:8]}")


def logs(
    run: RunId = None,
    cells: Annotated[
        list[str] | None,
        typer.Option(
            "--select", "-s", metavar="GLOB", help="Only cells whose ID matches; repeatable."
        ),
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.store.readonly import glance

    with glance(store_folder(store)) as reader:
        attempts = reader.attempts(reader.run(run).id)
    globs = cells or ["*"]
    shown = [a for a in attempts if any(fnmatchcase(a.cell, glob) for glob in globs)]
    if as_json:
        print_json(
            {
                "schema": "assay.logs/1",
                "attempts": [
                    {
                        "id": a.id,
                        "cell": a.cell,
                        "number": a.number,
                        "device": a.device,
                        "hub": a.hub,
                        "outcome": a.state.value,
                        "offline": a.offline is not None,
                        "error_id": a.error_id,
                        "error": a.error,
                        "started_unix": a.started,
                        "ended_unix": a.ended,
                        "artefacts": {r: b.sha256 for r, b in a.artefacts.items()},
                    }
                    for a in shown
                ],
            }
        )
        return
    for a in shown:
        took = f"{a.ended - a.started:.2f} s" if a.started and a.ended else "-"
        line = f"{a.id[:12]}  {a.cell}  #{a.number}  {a.device or '-'}  {a.state}  {took}"
        line += "  offline" if a.offline else ""
        print_text(printable(line + (f"  {a.error}" if a.error else "")))


def signoff(
    run: RunId = None,
    policy: Annotated[
        Path | None, typer.Option(help="Another policy (YAML) than the run's own.")
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> int:
    document = judged(run, store, policy)
    if as_json:
        print_json(document)
    else:
        from rich.console import Console

        from orchestrator.reports.terminal import render

        render(document, Console())
    return VERDICT_EXIT[document["verdict"]]


def report(
    run: RunId = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="html, json, junit or markdown. [default: by the name of FILE, else html]",
        ),
    ] = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.reports.formats import choose

    choose(format, out)
    document = judged(run, store)
    path = write_report(document, store_folder(store), out, format)
    if not as_json:
        print_text(str(path))
        return
    print_json(
        {
            "schema": "assay.report/1",
            "run": document["run"]["id"],
            "verdict": document["verdict"],
            "report": str(path),
        }
    )


def version(as_json: AsJson = False) -> None:
    number = installed("assay")
    if as_json:
        print_json({"schema": "assay.version/1", "assay": number})
    else:
        print_text(f"assay {number}")


def show(document: dict[str, Any], folder: Path, report: Path | None, as_json: bool) -> None:
    """Write the report, then print the document as JSON or as the final table."""
    path = write_report(document, folder, report)
    if as_json:
        from orchestrator.reports.jsonout import dumps

        print_data(dumps(document))
        notice(f"Report: {path}")
        return
    from rich.console import Console

    from orchestrator.reports.terminal import render

    render(document, Console(), path)


def write_report(
    document: dict[str, Any], folder: Path, out: Path | None, format: str | None = None
) -> Path:
    """The report's file, whole or not at all. Raises InputError E-REPORT-WRITE, E-REPORT-FORMAT."""
    from orchestrator.reports.formats import choose

    chosen = choose(format, out)
    path = out or folder / "reports" / f"{document['run']['id']}{chosen.suffix}"
    with _part_of(path) as part:
        part.write_text(chosen.render(document), encoding="utf-8")
        part.replace(path)
    return path


def check_report(out: Path | None) -> None:
    """Raises InputError E-REPORT-WRITE now rather than after hours of work."""
    if out is not None:
        with _part_of(out) as part:
            part.touch()


@contextmanager
def _part_of(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; nothing is left under it."""
    part = path.with_name(path.name + ".part")
    try:
        if path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            "E-REPORT-WRITE", f"cannot write: {error.strerror}", where=str(path)
        ) from None


def _run_json(info: Any) -> dict[str, Any]:
    return {
        "id": info.id,
        "name": info.name,
        "state": info.state.value,
        "created_unix": info.created,
        "cells": {k.value: v for k, v in info.cells.items()},
        "outcomes": {k.value: v for k, v in info.outcomes.items()},
    }
