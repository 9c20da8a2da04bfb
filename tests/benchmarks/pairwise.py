"""Pairs of devices: `variance.pair.compare` against one pass of memory reads, NumPy and DuckDB.

All arms compute on one thread and wait for nothing, so processor time is taken.
$ASSAY_BENCH_SAMPLES sets the samples of each device (default 10,000; the aim is stated for 50,000).
"""

from __future__ import annotations

import importlib
import os
import resource
import tempfile
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.variance import pair
from orchestrator.variance.answers import Answers, read
from orchestrator.variance.lattice import Output
from orchestrator.variance.tasks import Classification
from tests.benchmarks.kit import Spread, Table, interleave, ratios, scaled

SAMPLES = int(os.environ.get("ASSAY_BENCH_SAMPLES", "10000"))
CODES = 1000
DEVICES = 20
TURNS = 7
KINDS = {
    "equal": (0.0, 0),
    "1 % of samples, 5 % of their codes by 1 LSB": (0.01, 1),
    "all samples, 5 % of their codes by 1 LSB": (1.0, 1),
    "all samples, 5 % of their codes by up to 4 LSB": (1.0, 4),
    "all samples, 5 % of their codes by up to 60 LSB": (1.0, 60),
}

Codes = NDArray[np.int8]


def run() -> list[Table]:
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        base = np.random.default_rng(0).integers(-128, 128, (SAMPLES, CODES), dtype=np.int8)
        fleet = _fleet(folder, base)  # first: a process remembers its highest peak
        pairs = [_one_pair(folder, base, *kind) for kind in KINDS.items()]
        return [*pairs, _growth(folder, base), fleet]


def _one_pair(folder: Path, base: Codes, name: str, kind: tuple[float, int]) -> Table:
    a, b = _kept(folder, "a", base), _kept(folder, "b", _changed(base, *kind, seed=1))
    left, right = _answers(a), _answers(b)
    found, naive = pair.compare(left, right), _naive(a, b)
    assert (found.max_lsb, found.elements_different, found.lsb_histogram) == naive[:3]
    assert found.mean_signed_lsb == naive[3]
    arms: dict[str, Callable[[], object]] = {
        "one pass of reads (sum of both as 64-bit words)": lambda: _pass(a, b),
        "pair.compare": lambda: pair.compare(left, right),
        "sum of one side's codes, once per device": lambda: a.sum(dtype=np.int64),
        "naive NumPy, 64-bit codes": lambda: _naive(a, b),
    }
    if (duck := _duck(a, b)) is not None:
        arms["DuckDB, one row per code"] = duck
    taken = interleave(arms, TURNS, warm=1, clock=time.process_time)
    table = Table(f"a pair, {SAMPLES:,} samples x {CODES:,} int8 codes: {name}", "ms")
    for label, values in taken.items():
        table.add(label, scaled(values, 1e3))
    one, mine, _, *others = taken
    table.note(f"{_times(taken[mine], taken[one])} one pass; the aim is 2")
    for label in others:
        table.note(f"{label}: {_times(taken[label], taken[mine])} pair.compare")
    if duck is None:
        table.note("DuckDB is not installed: left out")
    return table


def _growth(folder: Path, base: Codes) -> Table:
    """Samples: a half against the whole."""
    b = _changed(base, 1.0, 1, seed=2)
    whole = _answers(_kept(folder, "a", base)), _answers(_kept(folder, "b", b))
    half = len(base) // 2
    part = (
        _answers(_kept(folder, "c", base[:half])),
        _answers(_kept(folder, "d", b[:half])),
    )
    taken = interleave(
        {"half": lambda: pair.compare(*part), "all": lambda: pair.compare(*whole)},
        TURNS,
        warm=1,
        clock=time.process_time,
    )
    table = Table(f"growth in samples, {half:,} and {len(base):,}", "ms")
    for label, values in taken.items():
        table.add(label, scaled(values, 1e3))
    table.note(f"twice the samples take {_times(taken['all'], taken['half'])} as long")
    return table


def _fleet(folder: Path, base: Codes) -> Table:
    """All pairs of 20 devices, every one with codes of its own; outputs are mapped files."""
    before = _peak()
    rows = [
        _answers(_kept(folder, f"unit-{i}", _changed(base, 0.2, 1, seed=i))) for i in range(DEVICES)
    ]
    held = _peak() - before
    few = list(combinations(rows[: DEVICES // 2], 2))
    every = list(combinations(rows, 2))
    taken = interleave(
        {
            f"{len(few)} pairs": lambda: [pair.compare(a, b) for a, b in few],
            f"{len(every)} pairs": lambda: [pair.compare(a, b) for a, b in every],
            "one pass of reads for each": lambda: [_pass(_codes(a), _codes(b)) for a, b in every],
        },
        turns=3,
        warm=0,
        clock=time.process_time,
    )
    after = _peak() - before - held
    table = Table(f"{DEVICES} devices, {SAMPLES:,} samples x {CODES:,} codes", "ms")
    for label, values in taken.items():
        table.add(label, scaled(values, 1e3))
    small, large, one = taken
    table.note(
        f"{len(every) / len(few):.2f} times the pairs take {_times(taken[large], taken[small])}"
    )
    table.note(f"{_times(taken[large], taken[one])} one pass for each pair, sums included")
    size = base.nbytes / 2**20
    table.note(
        f"outputs {DEVICES * size:.0f} MiB; peak memory grew by {held:.0f} MiB while they were "
        f"read, mapped pages included, and by {after:.0f} MiB in {len(every)} comparisons"
    )
    return table


def _changed(base: Codes, share: float, by: int, seed: int) -> Codes:
    """5 % of the codes of ``share`` of the samples moved by 1 to ``by`` steps either way."""
    found, rng = base.copy(), np.random.default_rng(seed)
    for i in np.flatnonzero(rng.random(len(base)) < share):
        at = rng.choice(CODES, CODES // 20, replace=False)
        step = rng.integers(1, by + 1, at.size) * rng.choice((-1, 1), at.size)
        found[i, at] = np.clip(found[i, at] + step, -128, 127)
    return found


def _kept(folder: Path, name: str, codes: Codes) -> Codes:
    np.save(folder / f"{name}.npy", codes)
    mapped: Codes = np.load(folder / f"{name}.npy", mmap_mode="r")
    return mapped


def _answers(codes: Codes) -> Answers:
    return read(Classification(), [Output("y", codes, 0.1, 0, -128, 127)])


def _codes(answers: Answers) -> Codes:
    return answers.outputs[0].values


def _pass(a: Codes, b: Codes) -> int:
    return int(a.view(np.uint64).sum()) + int(b.view(np.uint64).sum())


def _naive(a: Codes, b: Codes) -> tuple[int, int, dict[str, int], float]:
    delta = a.astype(np.int64) - b.astype(np.int64)
    distance = np.abs(delta)
    counts = np.bincount(distance.ravel())
    histogram = {str(i): int(k) for i, k in enumerate(counts) if k}
    distance.max(axis=1)
    (a != b).any(axis=1)
    return int(distance.max()), int((delta != 0).sum()), histogram, float(delta.mean())


def _duck(a: Codes, b: Codes) -> Callable[[], object] | None:
    try:
        duckdb: Any = importlib.import_module("duckdb")
    except ImportError:
        return None
    connection = duckdb.connect(config={"threads": 1})
    columns = {
        "sample": np.repeat(np.arange(len(a), dtype=np.int32), CODES),
        "a": np.ascontiguousarray(a).ravel(),
        "b": np.ascontiguousarray(b).ravel(),
    }
    connection.register("arrays", columns)
    connection.execute("CREATE TABLE codes AS SELECT * FROM arrays")
    distance = "abs(a::SMALLINT - b::SMALLINT)"
    asked = (
        f"SELECT {distance} AS lsb, count(*), sum(a::SMALLINT - b::SMALLINT) FROM codes GROUP BY 1",
        f"SELECT sample, max({distance}) FROM codes GROUP BY 1",
    )
    return lambda: [connection.execute(question).fetchnumpy() for question in asked]


def _times(above: list[float], below: list[float]) -> str:
    spread = Spread.of(ratios(above, below))
    return f"{spread.p50:.2f}x ({spread.low:.2f}–{spread.high:.2f})"


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
