"""Every row that counts carries a digest: edited, flipped or unreadable, it costs itself only."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import AssayError, DamageError, InfraError, InputError
from orchestrator.queue.states import AttemptState, CellState
from orchestrator.store import fingerprints, packs
from orchestrator.store.database import Store
from orchestrator.store.records import AttemptRecord, BaselineKey, content_id
from tests.integration.store_kit import INFRA, OK, add_devices, cells, lease_of, samples


@dataclass
class Kept:
    """A run of three cells: the first two answered by "pi", the third failed for good."""

    root: Path
    run: str

    def edit(self, *statements: str) -> None:
        with sqlite3.connect(self.root / "assay.db") as db:
            for statement in statements:
                assert db.execute(statement).rowcount >= 1, statement
        db.close()

    def open(self) -> Store:
        return Store.open(self.root, readonly=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    root = tmp_path_factory.mktemp("digests")
    with Store.open(root) as store:
        add_devices(store, "pi", "spare")
        run = store.create_run(name="r", frozen={"matrix": 1}, cells=cells(3), retry_infra=0)
        lease = lease_of(store, "pi")
        for n in range(3):
            claim = store.claim(run, lease)
            assert claim is not None
            output = store.artefacts.put_bytes(b"answer %d" % n)
            record = AttemptRecord(
                AttemptState.OK,
                codes_valid=True,
                timing_valid=True,
                started=1,
                ended=2.5,
                environment={"os": "Debian"},
                result={"n": n, "by": {5: "five"}},
                artefacts={"output-0": output, **samples(store, n)},
            )
            store.finish(claim.attempt, lease.token, record if n < 2 else INFRA)
        store.release(lease)
        store.save_verdict(run, {"verdict": "pass"})
    return Kept(root, run)


@pytest.fixture
def kept(made: Kept, tmp_path: Path) -> Kept:
    return Kept(Path(shutil.copytree(made.root, tmp_path / "store")), made.run)


def test_what_was_written_is_whole(kept: Kept) -> None:
    with kept.open() as store:
        attempts = store.attempts(kept.run)
        assert [(a.damage, a.witnessed) for a in attempts] == [(None, True)] * 3
        assert attempts[0].content == content_id([attempts[0].artefacts["output-0"].sha256])
        assert attempts[0].content != attempts[1].content
        assert attempts[2].content is None
        assert [c.damage for c in store.cells(kept.run)] == [None] * 3
        assert [d.damage for d in store.devices()] == [None] * 2
        assert store.frozen(kept.run) == {"matrix": 1}
        assert store.verdict(kept.run) == {"verdict": "pass"}


EDITS = {
    "outcome": "UPDATE attempt SET state = 'ok', codes_valid = 1 WHERE cell = 'pi-m2'",
    "another unit": "UPDATE attempt SET device = 'spare' WHERE cell = 'pi-m0'",
    "result": "UPDATE attempt SET result = '{\"n\":1}' WHERE cell = 'pi-m0'",
    "result of another type": "UPDATE attempt SET result = '[1]' WHERE cell = 'pi-m0'",
    "result that is no JSON": "UPDATE attempt SET result = '{\"n' WHERE cell = 'pi-m0'",
    "result that is deep": f"UPDATE attempt SET result = '{'[' * 100_000}' WHERE cell = 'pi-m0'",
    "text that is no UTF-8": "UPDATE attempt SET hub = CAST(x'ff41' AS TEXT) WHERE cell = 'pi-m0'",
    "bytes": "UPDATE attempt SET hub = x'00' WHERE cell = 'pi-m0'",
    "an unknown state": "UPDATE attempt SET state = 'okk' WHERE cell = 'pi-m0'",
    "time": "UPDATE attempt SET ended = 9e999 WHERE cell = 'pi-m0'",
    "validity": "UPDATE attempt SET timing_valid = 0 WHERE cell = 'pi-m0'",
    "another answer": (
        "UPDATE attempt_artefact SET sha256 = (SELECT x.sha256 FROM attempt_artefact x JOIN attempt"
        " a ON a.id = x.attempt WHERE a.cell = 'pi-m1' AND x.role = 'output-0') WHERE role ="
        " 'output-0' AND attempt = (SELECT id FROM attempt WHERE cell = 'pi-m0')"
    ),
    "a file less": (
        "DELETE FROM attempt_artefact WHERE role = 'telemetry'"
        " AND attempt = (SELECT id FROM attempt WHERE cell = 'pi-m0')"
    ),
    "content ID": "UPDATE attempt SET content = '0' WHERE cell = 'pi-m0'",
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_attempt_is_damaged_and_costs_itself_only(kept: Kept, what: str) -> None:
    kept.edit(EDITS[what])
    with kept.open() as store:
        found = {a.cell: a for a in store.attempts(kept.run)}
        (hurt,) = [a for a in found.values() if a.damage]
        assert hurt.cell == ("pi-m2" if what == "outcome" else "pi-m0")
        assert (hurt.state, hurt.error_id) == (AttemptState.INFRA_ERROR, "E-STORE-DAMAGED")
        assert (hurt.result, hurt.codes_valid, dict(hurt.artefacts)) == (None, None, {})
        assert hurt.cell in str(hurt.damage)
        assert {a.state for a in found.values() if not a.damage} <= {"ok", "infra_error"}
        assert store.run(kept.run).cells[CellState.DONE] == 3


def test_a_record_without_a_digest_is_unwitnessed(kept: Kept) -> None:
    kept.edit("UPDATE attempt SET digest = NULL WHERE cell = 'pi-m0'")
    with kept.open() as store:
        found = {a.cell: a for a in store.attempts(kept.run)}
        assert [a.witnessed for a in found.values()] == [False, True, True]
        assert (found["pi-m0"].damage, found["pi-m0"].state) == (None, "ok")


def test_a_damaged_cell_counts_as_an_error_and_is_not_run_again(kept: Kept) -> None:
    kept.edit(
        "UPDATE cell SET condition = 'repeat:3' WHERE id = 'pi-m0'",
        "UPDATE cell SET state = 'dooe' WHERE id = 'pi-m1'",
        "UPDATE cell SET slot = 'px' WHERE id = 'pi-m2'",
    )
    with kept.open() as store:
        found = store.cells(kept.run)
        assert [(c.state, c.outcome) for c in found] == [("done", "infra_error")] * 3
        assert all(c.damage and c.id in str(c.damage) for c in found)
        assert store.run(kept.run).cells[CellState.DONE] == 3


ASKED: dict[str, tuple[str, Callable[[Store, str], Any], type[AssayError], str]] = {
    "frozen": (
        "UPDATE run SET frozen = '{\"matrix\":2}'",
        lambda store, run: store.frozen(run),
        InputError,
        "E-FROZEN",
    ),
    "name": ("UPDATE run SET name = 's'", lambda store, run: store.frozen(run), InputError, "E-F"),
    "verdict": (
        'UPDATE verdict SET document = \'{"verdict":"fail"}\'',
        lambda store, run: store.verdict(run),
        DamageError,
        "E-STORE-DAMAGED",
    ),
    "verdict that is no object": (
        "UPDATE verdict SET document = '[]', digest = NULL",
        lambda store, run: store.verdict(run),
        DamageError,
        "E-STORE-DAMAGED",
    ),
    "environment": (
        'UPDATE environment SET data = \'{"os":"Debiao"}\'',
        lambda store, run: store.environment_data(str(store.attempts(run)[0].environment)),
        DamageError,
        "E-STORE-DAMAGED",
    ),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_damaged_row_that_is_asked_for_is_refused(kept: Kept, what: str) -> None:
    statement, ask, kind, id = ASKED[what]
    kept.edit(statement)
    with kept.open() as store, pytest.raises(kind, match=id) as caught:
        ask(store, kept.run)
    assert "\n" not in str(caught.value)


def test_devices_archives_baselines_and_fingerprints(kept: Kept) -> None:
    with Store.open(kept.root) as store:
        environment = store.environment({"cpu": "x"})
        key = BaselineKey("0" * 64, ["1" * 64], environment)
        store.baseline_put(key, {"attempt": "a", "outputs": []})
        for name in ("pi", "spare"):
            fingerprints.save(store, name, "ort", "1", {"m": 1}, {"sha256": name})
        run = store.create_run(name="away", frozen={}, cells=cells(1))
        packs.claim(store, run, "pi", ["pi-m0"], "n0", lambda claims: {"jobs": len(claims)})
    kept.edit(
        "UPDATE device SET emulated = 0 WHERE name = 'pi'",
        "UPDATE baseline SET data = '{}'",
        "UPDATE fingerprint SET document = '{\"sha256\":\"spare\"}' WHERE device = 'pi'",
        "UPDATE pack SET manifest = '{\"jobs\":7}'",
    )
    with kept.open() as store:
        assert [d.name for d in store.devices() if d.damage] == ["pi"]
        for ask in (
            lambda: store.baseline_get(key),
            lambda: store.baseline_newest("0" * 64, ["1" * 64]),
            lambda: store.pack("n0"),
            store.fingerprints,
        ):
            with pytest.raises(DamageError, match="E-STORE-DAMAGED"):
                ask()
        damage: dict[str, DamageError] = {}
        assert [f.device for f in store.fingerprints(damage=damage)] == ["spare"]
        assert list(damage) == ["the fingerprint of pi (ort)"]
        assert [pack.nonce for pack in store.packs(run)] == ["n0"]


def test_a_unit_that_is_seen_again_has_its_record_made_anew(kept: Kept) -> None:
    kept.edit("UPDATE device SET identity = '{\"serial\":\"pj\"}' WHERE name = 'pi'")
    with Store.open(kept.root) as store:
        store.upsert_device("pi", "qemu-a72", True, {"os": "Debian"})
        (pi,) = [d for d in store.devices() if d.name == "pi"]
        assert (pi.damage, pi.identity) == (None, {"os": "Debian"})


@pytest.mark.parametrize(
    "change",
    [
        {"result": {"latency": float("nan")}},
        {"environment": {"temp": float("inf")}},
        {"started": float("nan")},
        {"result": {"what": {1, 2}}},
    ],
    ids=str,
)
def test_what_no_database_can_hold_is_refused_and_nothing_is_written(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    with Store.open(tmp_path) as store:
        add_devices(store, "pi")
        run = store.create_run(name="r", frozen={}, cells=cells(1))
        lease = lease_of(store, "pi")
        claim = store.claim(run, lease)
        assert claim is not None
        record = AttemptRecord(**{**vars(OK), **change})
        with pytest.raises(InfraError, match="E-STORE-VALUE"):
            store.finish(claim.attempt, lease.token, record)
        assert store.attempts(run)[0].state == "running"
        assert not store.finish(claim.attempt, lease.token, OK).already
        assert store.finish(claim.attempt, lease.token, OK).already
