"""Tables of runs in a real store: figures, faults that are named, and a bounded writer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.export import parquet
from orchestrator.export.export import Export
from orchestrator.export.tables import TABLES
from orchestrator.store.compact import compact
from orchestrator.store.database import Store
from tests.integration.store_kit import OK, add_devices, cells, lease_of
from tests.support.answered import CLASSES, answer, put, queued, tiny_of
from tests.support.sealed import reseal

N = 6


@dataclass
class World:
    """``attempts``: device -> its only attempt."""

    store: Store
    folder: Path
    run: str
    attempts: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def export(self, *names: str) -> dict[str, list[dict[str, Any]]]:
        found = Export(self.store, [self.store.run(self.run)], self.notices.append)
        into = self.folder / "tables"
        into.mkdir(exist_ok=True)
        found.write(into, names or tuple(TABLES))
        return {
            name: pq.read_table(into / f"{name}.parquet").to_pylist() for name in names or TABLES
        }

    def spoil(self, device: str, role: str) -> None:
        attempt = next(a for a in self.store.attempts(self.run) if a.device == device)
        path = self.store.artefacts.path(attempt.artefacts[role].sha256)
        path.write_bytes(b"\0" + path.read_bytes()[1:])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Three devices: b decides sample 4 otherwise than a, c only has another byte in sample 2."""
    usual = np.arange(N * CLASSES, dtype=np.int8).reshape(N, CLASSES)
    other, bytes_only = usual.copy(), usual.copy()
    other[4] = other[4, ::-1]
    bytes_only[2, 0] -= 1
    with Store.open(tmp_path / "store") as store:
        run = queued(store, tiny_of(tmp_path / "matrix", "abc", N), usual)
        found = World(store, tmp_path, run)
        for name, outputs in (("a", usual), ("b", other), ("c", bytes_only)):
            found.attempts[name] = answer(store, run, name, outputs)
        yield found


def test_samples_hold_every_answer(world: World) -> None:
    rows = world.export("samples")["samples"]
    assert len(rows) == 3 * N
    assert {(r["device"], r["sample"]) for r in rows if r["flip"]} == {("b", 4)}
    usual = {r["sample"]: r["output"] for r in rows if r["device"] == "a"}
    differ = {(r["device"], r["sample"]) for r in rows if r["output"] != usual[r["sample"]]}
    assert differ == {("b", 4), ("c", 2)}
    assert [r["latency_ns"] for r in rows if r["device"] == "c"] == [
        1000 * n for n in range(1, N + 1)
    ]
    assert {r["attempt"] for r in rows} == set(world.attempts.values())


def test_packed_or_not_the_tables_are_the_same(world: World) -> None:
    loose = world.export("samples", "telemetry")
    assert compact(world.store, world.run) > 0
    assert world.export("samples", "telemetry") == loose
    assert [r["value"] for r in loose["telemetry"]] == [40.0] * 3


def test_a_run_without_a_verdict_says_so(world: World) -> None:
    found = world.export()
    assert found["rows"] == found["pairs"] == []
    assert {(p["part"], p["error_id"]) for p in found["problems"]} == {
        ("rows", "E-EXPORT-VERDICT"),
        ("pairs", "E-EXPORT-VERDICT"),
    }
    assert len(world.notices) == 1


def test_a_damaged_output_is_named_and_the_rest_answers(world: World) -> None:
    world.spoil("b", "output-0")
    found = world.export("samples", "attempts", "problems")
    assert {r["device"] for r in found["samples"]} == {"a", "c"}
    assert len(found["attempts"]) == 3
    (problem,) = found["problems"]
    assert (problem["part"], problem["error_id"]) == ("samples", "E-ARTEFACT-CORRUPT")
    assert problem["subject"].startswith("b-")
    assert problem["error"] in world.notices[0]


def test_a_damaged_pack_costs_the_latency_and_nothing_else(world: World) -> None:
    compact(world.store, world.run)
    with world.store.database.read() as connection:
        (pack,) = connection.exec_driver_sql(
            "SELECT DISTINCT packed FROM attempt_artefact WHERE role = 'latency_ns'"
        ).scalars()
    path = world.store.artefacts.path(pack)
    path.write_bytes(path.read_bytes()[:-4] + b"XXXX")
    found = world.export("samples", "telemetry", "problems")
    assert len(found["samples"]) == 3 * N
    assert {r["latency_ns"] for r in found["samples"]} == {None}
    assert len(found["telemetry"]) == 3
    assert {(p["subject"], p["error_id"]) for p in found["problems"]} == {
        (attempt, "E-ARTEFACT-CORRUPT") for attempt in world.attempts.values()
    }
    assert len(world.notices) == 1


def test_a_pack_that_is_no_parquet_is_named(world: World) -> None:
    compact(world.store, world.run)
    false = put(world.store, np.zeros(3))
    with world.store.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO artefact (sha256, size) VALUES (?, ?)", (false.sha256, false.size)
        )
        connection.exec_driver_sql(
            "UPDATE attempt_artefact SET packed = ? WHERE role = 'telemetry'", (false.sha256,)
        )
    found = world.export("telemetry", "problems")
    assert found["telemetry"] == []
    assert {p["error_id"] for p in found["problems"]} == {"E-ARTEFACT-FORMAT"}


@pytest.mark.parametrize(("role", "left"), [("latency_ns", 3 * N), ("sample_hashes", 3 * N)])
def test_a_file_that_is_no_array_is_named(world: World, role: str, left: int) -> None:
    false = world.store.artefacts.put_bytes(b"not npy")
    with world.store.database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO artefact (sha256, size) VALUES (?, ?)", (false.sha256, false.size)
        )
        connection.exec_driver_sql(
            "UPDATE attempt_artefact SET sha256 = ? WHERE role = ? AND attempt = ?",
            (false.sha256, role, world.attempts["b"]),
        )
        reseal(connection, world.attempts["b"])
    found = world.export("samples", "problems")
    assert len(found["samples"]) == left
    (problem,) = found["problems"]
    assert problem["error_id"] == "E-ARTEFACT-FORMAT"


def test_an_attempt_short_of_samples_is_left_out_by_name(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        usual = np.zeros((N, CLASSES), np.int8)
        run = queued(store, tiny_of(tmp_path / "matrix", "ab", N), usual)
        answer(store, run, "a", usual)
        short = answer(store, run, "b", usual[:-1])
        found = World(store, tmp_path, run).export("samples", "problems")
    assert {r["device"] for r in found["samples"]} == {"a"}
    (problem,) = found["problems"]
    assert problem["error_id"] == "E-ARTEFACT-FORMAT"
    assert short in problem["error"]


def test_a_run_whose_record_is_damaged_still_shows_its_attempts(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        add_devices(store, "pi")
        run = store.create_run(name="r", frozen={}, cells=cells(2))
        lease = lease_of(store, "pi")
        claim = store.claim(run, lease)
        assert claim is not None
        store.finish(claim.attempt, lease.token, OK)
        store.release(lease)
        found = World(store, tmp_path, run).export()
    assert [(a["outcome"], a["device"], a["emulated"]) for a in found["attempts"]] == [
        ("ok", "pi", True)
    ]
    assert [c["state"] for c in found["cells"]] == ["done", "pending"]
    assert found["samples"] == []
    assert "E-FROZEN" in {p["error_id"] for p in found["problems"]}


def test_long_tables_are_written_in_groups(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = world.export("samples")["samples"]
    monkeypatch.setattr(parquet, "GROUP", N + 1)
    assert world.export("samples")["samples"] == whole
    written = pq.ParquetFile(world.folder / "tables" / "samples.parquet")
    assert written.num_row_groups == 3
