"""Packing a run's small files: the same answers before, between and after, and fewer files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import InfraError
from orchestrator.queue.states import CellState
from orchestrator.store import series
from orchestrator.store.artefacts import Artefacts, put_and_commit
from orchestrator.store.compact import compact
from orchestrator.store.database import Store
from orchestrator.store.records import Blob, Finish, Reading
from orchestrator.store.series import LATENCY, Series
from tests.integration.store_kit import OK, add_devices, cells, lease_of, samples


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path) as store:
        add_devices(store, "pi")
        yield store


def queue(store: Store, count: int) -> str:
    return store.create_run(name="r", frozen={}, cells=cells(count))


def finish(store: Store, run: str, *contents: dict[str, Blob]) -> list[str]:
    lease = lease_of(store, "pi")
    done = []
    for artefacts in contents:
        claim = store.claim(run, lease)
        assert claim is not None
        store.finish(claim.attempt, lease.token, replace(OK, artefacts=artefacts))
        done.append(claim.attempt)
    store.release(lease)
    return done


def files(store: Store) -> set[str]:
    return {path.name for path in store.artefacts.folder.rglob("*") if path.is_file()}


def answers(store: Store, run: str) -> object:
    ns = series.latency(store, run)
    assert all(values.dtype == np.int64 for values in ns.values())
    return {a: v.tolist() for a, v in ns.items()}, series.telemetry(store, run)


def test_the_answers_stay_and_the_small_files_go(store: Store) -> None:
    run = queue(store, 3)
    output = store.artefacts.put_bytes(b"output tensor")
    contents = [samples(store, n) for n in range(3)]
    attempts = finish(store, run, *({**c, "output:0": output} for c in contents))
    before, listed = answers(store, run), store.attempts(run)
    assert series.latency(store, run)[attempts[1]].tolist() == [1, 1001, 2001, 3001, 4001]
    assert series.telemetry(store, run)[attempts[1]][:5] == [
        Reading(0.0, "temp/cpu", 41.0),
        Reading(0.0, "temp/gpu", None),
        Reading(0.0, "freq/cpu0", 1_500_000.0),
        Reading(0.0, "flags/throttled", None),
        Reading(0.0, "mem/free", float(1 << 31)),
    ]
    assert compact(store, run) == 6
    assert answers(store, run) == before
    assert store.attempts(run) == listed
    assert len(files(store)) == 3
    assert output.sha256 in files(store)
    again = files(store)
    assert compact(store, run) == 0
    assert files(store) == again
    assert answers(store, run) == before


def test_the_packs_are_plain_parquet(store: Store) -> None:
    import pyarrow.parquet as pq

    run = queue(store, 2)
    finish(store, run, samples(store, 1), samples(store, 2))
    compact(store, run)
    tables = [pq.read_table(store.artefacts.path(name)) for name in files(store)]
    schemas = {tuple(f"{f.name} {f.type}" for f in table.schema) for table in tables}
    assert schemas == {
        ("attempt string", "sample int32", "ns int64"),
        ("attempt string", "t_s double", "sensor string", "value double"),
    }


def test_attempts_finished_later_are_packed_later(store: Store) -> None:
    run = queue(store, 3)
    contents = [samples(store, n) for n in range(3)]
    finish(store, run, *contents[:2])
    compact(store, run)
    finish(store, run, contents[2])
    between = answers(store, run)
    assert compact(store, run) == 2
    assert answers(store, run) == between
    assert len(series.latency(store, run)) == 3
    assert len(files(store)) == 4


def test_a_file_that_another_run_needs_stays_until_it_is_packed_too(store: Store) -> None:
    shared = samples(store, 7)
    first, second = queue(store, 2), queue(store, 1)
    finish(store, first, shared, shared)
    finish(store, second, shared)
    before = answers(store, second)
    compact(store, first)
    assert {blob.sha256 for blob in shared.values()} <= files(store)
    assert answers(store, second) == before
    assert len(series.latency(store, first)) == 2
    compact(store, second)
    assert not {blob.sha256 for blob in shared.values()} & files(store)
    assert answers(store, second) == before


def test_empty_files_and_attempts_without_any_are_answered_as_such(store: Store) -> None:
    run = queue(store, 3)
    stream = io.BytesIO()
    np.save(stream, np.zeros(0, np.int64))
    empty = {
        "latency_ns": store.artefacts.put_bytes(stream.getvalue()),
        "telemetry": store.artefacts.put_bytes(b""),
    }
    attempts = finish(store, run, empty, {}, samples(store, 1))
    for _ in range(2):
        for kept in (series.latency(store, run), series.telemetry(store, run)):
            assert set(kept) == {attempts[0], attempts[2]}
        assert series.latency(store, run)[attempts[0]].shape == (0,)
        assert series.telemetry(store, run)[attempts[0]] == []
        compact(store, run)


@pytest.mark.parametrize("calls_before_death", range(8))
def test_dying_at_any_step_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, calls_before_death: int
) -> None:
    run = queue(store, 2)
    finish(store, run, samples(store, 1), samples(store, 2))
    before = answers(store, run)
    left = calls_before_death

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch:
        for name in ("put_file", "require", "remove"):
            real = getattr(Artefacts, name)

            def step(self: Artefacts, *args: object, real: object = real) -> object:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                assert callable(real)
                return real(self, *args)

            patch.setattr(Artefacts, name, step)
        with pytest.raises(Killed):
            compact(store, run)
    assert answers(store, run) == before
    compact(store, run)
    assert answers(store, run) == before
    assert len(files(store)) == 2


@pytest.mark.parametrize(
    ("role", "content"),
    [
        ("telemetry", b"not json\n"),
        ("telemetry", b'{"temps": {}}\n'),
        ("telemetry", b"[]\n"),
        ("latency_ns", b"not npy"),
        ("latency_ns", b""),
    ],
)
def test_a_file_not_in_the_agreed_form_is_named_and_kept(
    store: Store, role: str, content: bytes
) -> None:
    run = queue(store, 2)
    bad = store.artefacts.put_bytes(content)
    attempt, good = finish(store, run, {role: bad}, samples(store, 1))
    assert compact(store, run) == 2  # the good one's
    assert bad.sha256 in files(store)
    read: Any = {"latency_ns": series.latency, "telemetry": series.telemetry}[role]
    damage: dict[str, InfraError] = {}
    assert set(read(store, run, damage)) == {good}
    assert damage[attempt].id == "E-ARTEFACT-FORMAT"
    with pytest.raises(InfraError, match=attempt):
        read(store, run)


def test_latency_must_be_whole_numbers_in_one_row(store: Store) -> None:
    run = queue(store, 1)
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 2)))
    finish(store, run, {"latency_ns": store.artefacts.put_bytes(stream.getvalue())})
    with pytest.raises(InfraError, match=r"float64\[2, 2\]"):
        series.latency(store, run)


def test_two_coordinators_pack_the_same_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one packs and deletes between this one's list and its reading."""
    run = queue(store, 3)
    finish(store, run, *(samples(store, n) for n in range(3)))
    before, read = answers(store, run), Artefacts.read
    with Store.open(tmp_path) as other:
        calls: list[int] = []

        def beaten(self: Artefacts, sha256: str, *, verify: bool = True) -> bytes:
            if not calls:
                calls.append(1)
                calls.append(compact(other, run))
            return read(self, sha256, verify=verify)

        monkeypatch.setattr(Artefacts, "read", beaten)
        assert compact(store, run) == 0
    assert calls == [1, 6]
    assert answers(store, run) == before


def test_packed_by_another_while_it_is_read(store: Store) -> None:
    run = queue(store, 2)
    attempts = finish(store, run, *(samples(store, n) for n in range(2)))
    series = Series(store, run, LATENCY)
    before = series.table(attempts[0])
    compact(store, run)
    assert series.table(attempts[0]).equals(before)
    assert series.table(attempts[1]).num_rows == before.num_rows


def test_a_loose_file_that_is_gone_is_told(store: Store) -> None:
    run = queue(store, 1)
    content = samples(store, 0)
    attempts = finish(store, run, content)
    store.artefacts.remove(content["latency_ns"].sha256)
    for _ in range(2):
        with pytest.raises(InfraError, match="is not there"):
            Series(store, run, LATENCY).table(attempts[0])
        compact(store, run)


def test_a_file_swept_between_its_put_and_its_commit_is_put_anew(store: Store) -> None:
    """Two attempts with the same telemetry, say none: the other's compaction takes the file."""
    first, second = queue(store, 1), queue(store, 1)
    content = samples(store, 0)
    finish(store, first, content)
    lease = lease_of(store, "pi")
    claim = store.claim(second, lease)
    assert claim is not None
    tries: list[int] = []

    def both() -> Finish:
        kept = samples(store, 0)
        if not tries:
            compact(store, first)
        tries.append(1)
        return store.finish(claim.attempt, lease.token, replace(OK, artefacts=kept))

    assert put_and_commit(both).cell is CellState.DONE
    assert len(tries) == 2
    assert series.latency(store, second)[claim.attempt].tolist() == [0, 1000, 2000, 3000, 4000]


def test_what_stays_away_is_told_after_some_tries() -> None:
    tries: list[int] = []

    def never() -> None:
        tries.append(1)
        raise InfraError("E-ARTEFACT-MISSING", "it is not there", retryable=False)

    with pytest.raises(InfraError, match="not there"):
        put_and_commit(never, tries=3)
    assert len(tries) == 3
