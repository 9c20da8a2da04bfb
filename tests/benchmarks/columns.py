"""The samples table: from the store to Parquet against a bare pyarrow write, and asking it.

ASSAY_BENCH_ROWS sets the sample rows (default 1,000,000; the aims are for 10,000,000).
"""

from __future__ import annotations

import hashlib
import io
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.columns.ask import Limits, ask
from orchestrator.export import Export
from orchestrator.frozen import load_run
from orchestrator.queue.states import AttemptState
from orchestrator.run import enqueue, plan
from orchestrator.staging import here
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from orchestrator.store.records import AttemptRecord, BaselineKey, Blob
from tests.benchmarks.kit import Spread, Table, interleave, ratios, scaled
from tests.support.tiny import MODELS, Tiny

ROWS = int(os.environ.get("ASSAY_BENCH_ROWS", "1000000"))
SAMPLES = min(50_000, ROWS)
CLASSES = 10
TURNS = 3
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
    run = store.run()
    ours = folder / "ours"
    ours.mkdir()
    counts = Export(store, [run], print).write(ours, ["samples"])
    whole = pq.read_table(ours / "samples.parquet")
    # What a bare writer is given is in memory, contiguous and typed already.
    whole = whole.unify_dictionaries().combine_chunks()
    taken = interleave(
        {
            "from the store's artefacts": lambda: Export(store, [run], print).write(
                ours, ["samples"]
            ),
            "bare pyarrow write of the same rows": lambda: pq.write_table(
                whole, folder / "bare.parquet"
            ),
        },
        TURNS,
        warm=1,
    )
    table = Table(f"{counts['samples']:,} sample rows to Parquet", "s")
    for label, values in taken.items():
        table.add(label, values)
    times = Spread.of(ratios(*taken.values()))
    table.note(f"{times.p50:.2f}x ({times.low:.2f}–{times.high:.2f}); aim: at most 1.5x")
    table.note(f"{len(store.attempts(run.id, results=False))} attempts, {whole.num_columns} columns")
    table.note("from the store: read, check hashes, decide, compare with FP32, write")
    return table


def _peak(folder: Path) -> str:
    """Peak memory of the real command, whose tables are then those that the questions ask."""
    assay = Path(sys.executable).with_name("assay")
    arguments = ["export", "--parquet", folder / "tables", "--store", folder / "store"]
    subprocess.run([assay, *arguments], check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return f"`assay export` of all tables peaks at {peak / 1024:.0f} MiB"


def _questions(folder: Path) -> Table:
    tables = folder / "tables"
    bare = duckdb.connect()
    bare.execute(f"CREATE VIEW samples AS FROM read_parquet('{tables / 'samples.parquet'}')")
    table = Table(f"fleet questions over {ROWS:,} sample rows", "ms")
    for what, question in QUESTIONS.items():
        taken = interleave(
            {
                "locked, in a child": lambda q=question: ask(tables, ["samples"], q, Limits()),
                "bare DuckDB in this process": lambda q=question: bare.execute(q).fetchall(),
            },
            TURNS,
            warm=1,
        )
        for label, values in taken.items():
            table.add(f"{what}, {label}", scaled(values, 1e3))
    table.note("aim: under 1,000; both read the same Parquet file from the page cache")
    return table


def _fill(store: Store, folder: Path) -> None:
    """A run whose devices answered at once: ROWS / SAMPLES of them, 1 % of samples differ."""
    rng = np.random.default_rng(0)
    tiny = _matrix(folder / "matrix", max(1, ROWS // SAMPLES), rng)
    planned = plan(tiny.write(), [])
    run = enqueue(store, planned, here)
    staging = load_run(store.frozen(run)).staging
    usual = rng.integers(-128, 128, (SAMPLES, CLASSES), dtype=np.int8)
    digests = _digests(usual)
    key = BaselineKey(
        staging.models["cnn"].sha256,
        [staging.tensors["cnn/digits"].sha256],
        store.environment({"bench": True}),
    )
    fp32 = _put(store, usual.astype(np.float32))
    store.baseline_put(key, {"attempt": "fp32", "outputs": [fp32.sha256]})
    for name in planned.devices:
        outputs, hashes = usual.copy(), digests.copy()
        other = rng.choice(SAMPLES, SAMPLES // 100, replace=False)
        outputs[other] = rng.permuted(outputs[other], axis=1)
        hashes[other] = _digests(outputs[other])
        _finish(store, run, name, outputs, hashes, rng)
    store.compact(run)


def _matrix(folder: Path, devices: int, rng: np.random.Generator) -> Tiny:
    tiny = Tiny(folder)
    tiny.devices = [tiny.device(f"d{n}") for n in range(devices)]
    model = tiny.matrix["models"][0]
    model["fp32"] = {"path": str(MODELS / "digits_cnn.fp32.tflite")}
    model["files"] = [{"name": "int8", "path": str(MODELS / "digits_cnn.int8.tflite")}]
    tiny.matrix["runtimes"] = [{"name": "litert", "runtime": "litert"}]
    folder.mkdir(parents=True)
    shape = (SAMPLES, 8, 8, 1)
    x = rng.random(shape, dtype=np.float32)
    np.savez(folder / "x.npz", x=x, y=rng.integers(0, CLASSES, SAMPLES))
    tiny.inputs.update(path=str(folder / "x.npz"))
    del tiny.inputs["limit"]
    return tiny


def _finish(store: Store, run: str, device: str, outputs: Any, hashes: Any, rng: Any) -> None:
    lease = store.acquire_lease(device, this_process())
    assert lease is not None
    claim = store.claim(run, lease)
    assert claim is not None
    output = _put(store, outputs)
    result = {
        "model_sha256": "0" * 64,
        "outputs": [{"blob": vars(output)}],
        "backend": {"planned": "cpu", "fallbacks": []},
        "repeats": {"count": 1, "samples": 0, "mismatches": 0},
        "telemetry": {"reasons": []},
    }
    record = AttemptRecord(
        AttemptState.OK,
        codes_valid=True,
        timing_valid=True,
        environment={"isa_flags": [], "cores": []},
        result=result,
        artefacts={
            "output-0": output,
            "sample_hashes": _put(store, hashes),
            "latency_ns": _put(store, rng.integers(10_000, 1_000_000, SAMPLES)),
        },
    )
    store.finish(claim.attempt, lease.token, record)
    store.release(lease)


def _digests(outputs: Any) -> Any:
    """[n, 32] as the worker writes them."""
    joined = b"".join(hashlib.sha256(sample.tobytes()).digest() for sample in outputs)
    return np.frombuffer(joined, np.uint8).reshape(len(outputs), 32).copy()


def _put(store: Store, array: Any) -> Blob:
    stream = io.BytesIO()
    np.save(stream, array)
    return store.artefacts.put_bytes(stream.getvalue())
