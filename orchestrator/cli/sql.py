"""sql and export: the store as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from device_worker.scratch import scratch
from orchestrator.cli.options import (
    AsJson,
    RunId,
    StoreFolder,
    notice,
    print_data,
    print_json,
    print_text,
    store_folder,
)
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.export.ask import Answer
    from orchestrator.store.database import Store
    from orchestrator.store.records import RunInfo


def register(app: typer.Typer) -> None:
    app.command(help=_SQL, rich_help_panel="Store")(sql)
    app.command(help=_EXPORT, rich_help_panel="Store")(export)


_SQL = """Query the tables of a run, or of all, in SQL.

Nothing else can be read, and nothing written.

The dialect is DuckDB's. The tables are a snapshot that is gone afterwards; --tables lists them.

Example: assay sql "SELECT device, outcome, count(*) AS n FROM attempts GROUP BY ALL"
"""
_EXPORT = """Write a run's tables as Parquet files into a new folder.

Example: assay export --parquet /tmp/run-tables
"""


def sql(
    question: Annotated[
        str | None, typer.Argument(metavar="[SELECT]", help="One SELECT.", show_default=False)
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            "--run", metavar="RUN", help="Run ID or its beginning; repeatable. [default: newest]"
        ),
    ] = None,
    across_runs: Annotated[
        bool, typer.Option("--across-runs", help="All runs of the store.")
    ] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="List the tables and columns; asks nothing.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="ROWS", help="Rows of the answer.")] = 1000,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Given up after this long.")
    ] = 60.0,
    memory: Annotated[
        int, typer.Option(min=64, metavar="MIB", help="Memory that the question may use.")
    ] = 2048,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    if tables:
        _list_tables(as_json)
        return
    if question is None:
        raise InputError("E-USAGE", "no question", fix="see: assay sql --help")
    if (as_json and as_csv) or (runs and across_runs):
        both = "--json and --csv" if as_csv and as_json else "--run and --across-runs"
        raise InputError("E-USAGE", f"{both} exclude each other", fix="choose one")
    from orchestrator.export.ask import Limits, ask, wanted
    from orchestrator.export.export import Export
    from orchestrator.export.parquet import new_folder
    from orchestrator.store.database import Store

    names = wanted(question)
    with scratch("sql") as made:
        folder = Path(made) / "tables"
        with Store.open(store_folder(store), readonly=True) as opened, new_folder(folder) as part:
            Export(opened, _chosen(opened, runs, across_runs), _notice).write(part, names)
        answer = ask(folder, names, question, Limits(timeout, memory, limit))
    _print(answer, limit, as_json, as_csv)


def export(
    parquet: Annotated[
        Path, typer.Option("--parquet", metavar="DIR", help="A new or an empty folder.")
    ],
    run: RunId = None,
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    from orchestrator.export.export import Export
    from orchestrator.export.parquet import new_folder
    from orchestrator.store.database import Store

    with Store.open(store_folder(store), readonly=True) as opened, new_folder(parquet) as folder:
        info = opened.run(run)
        tables = Export(opened, [info], _notice)
        counts = tables.write(folder)
    if as_json:
        print_json(
            {
                "schema": "assay.export/1",
                "run": info.id,
                "folder": str(parquet),
                "tables": {
                    name: {"file": f"{name}.parquet", "rows": rows} for name, rows in counts.items()
                },
                "problems": tables.problems,
            }
        )
        return
    for name, rows in counts.items():
        print_text(f"{parquet / name}.parquet  {rows} rows")


def _chosen(store: Store, ids: Sequence[str] | None, every: bool) -> list[RunInfo]:
    if every:
        return store.runs(limit=1 << 31)
    found = [store.run(id) for id in ids] if ids else [store.run(None)]
    return list({run.id: run for run in found}.values())


def _print(answer: Answer, limit: int, as_json: bool, as_csv: bool) -> None:
    names = [name for name, _ in answer.columns]
    if as_json:
        print_json(answer.to_json())
    elif as_csv:
        from orchestrator.reports.sql import as_csv as csv_text

        print_data(csv_text(names, answer.rows))
    else:
        from rich.console import Console

        from orchestrator.reports.sql import render

        render(names, answer.rows, Console())
    if answer.truncated:
        _notice(f"only the first {limit} rows are shown; more: --limit ROWS")


def _list_tables(as_json: bool) -> None:
    from orchestrator.export.tables import TABLES, VERSION

    if as_json:
        listed = [
            {"name": t.name, "meaning": t.meaning, "columns": [vars(c) for c in t.columns]}
            for t in TABLES.values()
        ]
        print_json({"schema": VERSION, "tables": listed})
        return
    for table in TABLES.values():
        print_text(f"{table.name}: {table.meaning}")
        for column in table.columns:
            print_text(f"  {column.name:19} {column.kind:8} {column.meaning}")


def _notice(text: str) -> None:
    notice(f"assay: {text}")
