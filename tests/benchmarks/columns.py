"""The samples table: from the store to Parquet against a bare pyarrow write, and asking it.

ASSAY_BENCH_ROWS sets the sample rows (default 1,000,000; the aims are for 10,000,000).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from orchestrator.export.ask import Limits, ask
from orchestrator.export.export import Export
from orchestrator.store.compact import compact
from orchestrator.store.database import Store
from tests.benchmarks.kit import Call, Spread, Table, interleave, ratios, scaled
from tests.support.answered import CLASSES, answer, digests, queued, tiny_of

ROWS = int(os.environ.get("ASSAY_BENCH_ROWS", "1000000"))
SAMPLES = min(50_000, ROWS)
TURNS = 5
COMMAND = """
import pathlib, sys
from orchestrator.cli.main import invoke
code = invoke(sys.argv[1:])
status = pathlib.Path("/proc/self/status").read_text()
print(code, next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
"""
QUESTIONS = {
    "flips of each device": (
        "SELECT device, count(*) FILTER (flip) AS flips, count(*) AS n"
        " FROM samples GROUP BY device ORDER BY flips DESC"
    ),
    "samples that devices decide differently": (
        "SELECT count(*) FROM (SELECT model, file, inputs, sample FROM samples GROUP BY ALL"
        " HAVING count(DISTINCT decision) > 1)"
    ),
    "percentiles of latency by device": (
        "SELECT device, quantile_cont(latency_ns, [0.5, 0.99]) FROM samples GROUP BY device"
    ),
}


def run() -> list[Table]:
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        with Store.open(folder / "store") as store:
            _fill(store, folder)
            ingest = _ingest(store, folder)
        ingest.note(_peak(folder))
        return [ingest, _questions(folder)]


def _ingest(store: Store, folder: Path) -> Table:
    run, ours = store.run(), folder / "ours"
    ours.mkdir()
    count = Export(store, [run], print).write(ours, ["samples"])["samples"]
    whole = pq.read_table(ours / "samples.parquet")
    # What a bare writer is given is in memory, contiguous and typed already.
    whole = whole.unify_dictionaries().combine_chunks()
    spent: dict[str, list[float]] = {"ours": [], "bare": []}

    def export() -> None:
        Export(store, [run], print).write(ours, ["samples"])

    def bare() -> None:
        pq.write_table(whole, folder / "bare.parquet")

    taken = interleave(
        {n: _clocked(c, spent[n]) for n, c in (("ours", export), ("bare", bare))}, TURNS
    )
    labels = {"ours": "from the store's artefacts", "bare": "bare pyarrow write of the same rows"}
    table = Table(f"{count:,} sample rows to Parquet", "s")
    for arm, label in labels.items():
        table.add(label, taken[arm])
    for arm, label in labels.items():
        table.add(f"{label}, CPU", spent[arm][-TURNS:])
    wall = Spread.of(ratios(taken["ours"], taken["bare"]))
    cpu = Spread.of(ratios(spent["ours"][-TURNS:], spent["bare"][-TURNS:]))
    table.note(f"{wall.p50:.2f}x ({wall.low:.2f}–{wall.high:.2f}); aim: at most 1.5x")
    table.note(f"CPU {cpu.p50:.2f}x ({cpu.low:.2f}–{cpu.high:.2f}), on two threads against one")
    attempts = len(store.attempts(run.id))
    table.note(f"{attempts} attempts of {SAMPLES:,} samples, {whole.num_columns} columns")
    table.note("from the store: read, check hashes, decide, compare with FP32, encode, write")
    return table


def _clocked(call: Callable[[], None], spent: list[float]) -> Call:
    def clocked() -> None:
        begin = time.process_time()
        call()
        spent.append(time.process_time() - begin)

    return clocked


def _peak(folder: Path) -> str:
    """Peak memory of the command, whose tables are then those that the questions ask."""
    arguments = ["export", "--json", "--parquet", folder / "tables", "--store", folder / "store"]
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    code, kib = done.stdout.split()[-2:]
    assert code == "0", done.stderr
    return f"`assay export` of all tables peaks at {int(kib) / 1024:.0f} MiB"


def _questions(folder: Path) -> Table:
    tables = folder / "tables"
    connection = duckdb.connect()
    connection.execute(f"CREATE VIEW samples AS FROM read_parquet('{tables / 'samples.parquet'}')")
    table = Table(f"fleet questions over {ROWS:,} sample rows", "ms")
    for what, question in QUESTIONS.items():

        def locked(question: str = question) -> None:
            ask(tables, ["samples"], question, Limits())

        def bare(question: str = question) -> None:
            connection.execute(question).fetchall()

        arms = {"locked, in a child": locked, "bare DuckDB in this process": bare}
        for label, values in interleave(arms, TURNS).items():
            table.add(f"{what}, {label}", scaled(values, 1e3))
    table.note("aim: under 1,000; both read the same Parquet file from the page cache")
    return table


def _fill(store: Store, folder: Path) -> None:
    """A run of ROWS / SAMPLES devices; each answers 1 % of the samples otherwise than the rest."""
    rng = np.random.default_rng(0)
    names = [f"d{n}" for n in range(max(1, ROWS // SAMPLES))]
    usual = rng.integers(-128, 128, (SAMPLES, CLASSES), dtype=np.int8)
    hashes = digests(usual)
    run = queued(store, tiny_of(folder / "matrix", names, SAMPLES), usual)
    for name in names:
        mine, my_hashes = usual.copy(), hashes.copy()
        other = rng.choice(SAMPLES, SAMPLES // 100, replace=False)
        mine[other] = rng.permuted(mine[other], axis=1)
        my_hashes[other] = digests(mine[other])
        answer(store, run, name, mine, my_hashes, rng.integers(10_000, 1_000_000, SAMPLES))
    compact(store, run)
