"""The store: what a durable commit costs, and 10,000 latency files against one Parquet file."""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert

from orchestrator.queue.states import AttemptState
from orchestrator.store import series
from orchestrator.store.compact import compact
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from orchestrator.store.records import AttemptRecord, Blob, CellSpec, Lease
from orchestrator.store.tables import Artefact, Attempt, AttemptArtefact
from tests.benchmarks.kit import Spread, Table, interleave, ratios, scaled

TURNS = 150
WARM = 5
ATTEMPTS = 10_000
SAMPLES = 100
READS = 3


def run() -> list[Table]:
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        with Store.open(folder / "store") as store:
            return [_commits(store, folder), _reads(store)]


def _commits(store: Store, folder: Path) -> Table:
    lease, run_id = _leased(store, "commits", TURNS + WARM)
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute("CREATE TABLE t (x)")
    rng = np.random.default_rng(0)
    split: dict[str, list[float]] = {"claim": [], "finish": []}

    def cell() -> None:
        begin = time.perf_counter()
        claim = store.claim(run_id, lease)
        assert claim is not None
        middle = time.perf_counter()
        store.finish(claim.attempt, lease.token, AttemptRecord(AttemptState.OK, result={}))
        split["claim"].append(middle - begin)
        split["finish"].append(time.perf_counter() - middle)

    def synced() -> None:
        with (folder / "synced").open("wb") as file:
            file.write(rng.bytes(4096))
            file.flush()
            os.fsync(file.fileno())

    arms = {
        "claim and finish, 2 commits": cell,
        "an artefact of 4 KiB": lambda: store.artefacts.put_bytes(rng.bytes(4096)),
        "bare SQLite, 1 insert, same durability": lambda: bare.execute("INSERT INTO t VALUES (1)"),
        "bare file of 4 KiB and fsync": synced,
    }
    table = Table("durable writes", "ms")
    for label, values in interleave(arms, TURNS, WARM).items():
        table.add(label, scaled(values, 1e3))
    for label, values in split.items():
        table.add(f"of it: {label}", scaled(values[WARM:], 1e3))
    bare.close()
    return table


def _reads(store: Store) -> Table:
    loose, packed = (_finished(store, name, seed) for seed, name in enumerate(("loose", "packed")))
    begin = time.perf_counter()
    files = compact(store, packed)
    seconds = time.perf_counter() - begin
    taken = interleave(
        {
            "small files": lambda: series.latency(store, loose),
            "one Parquet file": lambda: series.latency(store, packed),
        },
        READS,
        warm=1,
    )
    table = Table(f"latency(run) of {ATTEMPTS:,} attempts of {SAMPLES} samples", "ms")
    for label, values in taken.items():
        table.add(label, scaled(values, 1e3))
    faster = Spread.of(ratios(taken["small files"], taken["one Parquet file"]))
    table.note(f"small files take {faster.p50:.1f}x as long ({faster.low:.1f}–{faster.high:.1f})")
    table.note(f"packing took {seconds:.1f} s for {files:,} files; files were in the page cache")
    return table


def _leased(store: Store, name: str, cells: int) -> tuple[Lease, str]:
    store.upsert_device(name, "bench", False, {})
    specs = [
        CellSpec(f"{name}-{n}", name, [name], "m", "f", "i", "clean", "r", "e", n)
        for n in range(cells)
    ]
    run_id = store.create_run(name=name, frozen={}, cells=specs)
    lease = store.acquire_lease(name, this_process())
    assert lease is not None
    return lease, run_id


def _finished(store: Store, name: str, seed: int) -> str:
    """A run of ATTEMPTS finished attempts, each with a latency file of its own.

    Written past the store's methods, in one transaction and without syncs: only reading is timed.
    """
    rng = np.random.default_rng(seed)
    _, run_id = _leased(store, name, 1)
    attempts: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    uses: list[dict[str, Any]] = []
    for number in range(1, ATTEMPTS + 1):
        buffer = io.BytesIO()
        np.save(buffer, rng.integers(10_000, 1_000_000, SAMPLES, dtype=np.int64))
        blob = _written(store, buffer.getvalue())
        attempt = uuid.uuid4().hex
        attempts.append(
            {
                "id": attempt,
                "run": run_id,
                "cell": f"{name}-0",
                "number": number,
                "device": name,
                "token": 1,
                "state": AttemptState.OK,
                "claimed": float(number),
                "retryable": False,
            }
        )
        files.append(vars(blob))
        uses.append({"attempt": attempt, "role": "latency_ns", "sha256": blob.sha256})
    with store.database.write() as connection:
        connection.execute(insert(Attempt), attempts)
        connection.execute(insert(Artefact), files)
        connection.execute(insert(AttemptArtefact), uses)
    return run_id


def _written(store: Store, data: bytes) -> Blob:
    sha256 = hashlib.sha256(data).hexdigest()
    place = store.artefacts.place(sha256)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    return Blob(sha256, len(data))
