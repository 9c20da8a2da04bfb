"""Packed, run by hand without a network, ingested: the same attempt as online, counted once."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.coordinator.loop import Stop
from orchestrator.errors import InfraError, InputError, NotAvailableError
from orchestrator.fanout.inprocess import InProcess
from orchestrator.offline.ingest import Ingested, ingest
from orchestrator.offline.pack import Packed, cancel, pack
from orchestrator.queue.states import AttemptState, CellState, RunState
from orchestrator.reports.progress import PlainProgress
from orchestrator.run import enqueue, finish, plan
from orchestrator.staging.stage import here
from orchestrator.store import packs
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from orchestrator.store.records import AttemptInfo
from tests.support import offline
from tests.support.hermetic import native
from tests.support.tiny import MODELS, Tiny

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    made = Tiny(tmp_path / "matrix")
    made.matrix["conditions"] = ["clean", "repeat:3"]
    return made


@dataclass
class Farm:
    store: Store
    folder: Path
    fan: InProcess

    def queued(self, tiny: Tiny) -> str:
        return enqueue(self.store, plan(tiny.write(), []), here)

    def finish(self, run: str) -> dict[str, Any] | None:
        progress = PlainProgress(io.StringIO())
        progress.start(0)
        return finish(self.store, run, self.fan, progress, Stop())

    def pack(self, run: str, glob: str = "*", device: str | None = None) -> Packed:
        return pack(self.store, run, [glob], self.folder / "out", device=device)

    def away(self, packed: Packed, *arguments: str) -> Path:
        """The result of running the archive by hand."""
        folder = offline.unpack(packed.path, self.folder / "away" / packed.nonce)
        done = offline.by_hand(folder, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert not list(folder.glob("*.part"))
        return offline.result_of(folder)

    def ingest(self, path: Path) -> Ingested:
        return ingest(self.store, path)

    def attempts(self, run: str) -> dict[str, AttemptInfo]:
        return {a.cell: a for a in self.store.attempts(run)}

    def state(self, run: str) -> list[tuple[str, str]]:
        """Everything that a refused result must not change."""
        cells = [(c.id, c.state.value) for c in self.store.cells(run)]
        return [*cells, *((a.id, a.state.value) for a in self.store.attempts(run))]

    def refused(self, run: str, path: Path, id: str, what: str = "") -> None:
        """Refused in one line, and nothing stored."""
        before = self.state(run)
        with pytest.raises(InputError, match=what or None) as caught:
            self.ingest(path)
        assert (caught.value.id, caught.value.exit_code) == (id, 2)
        assert "\n" not in str(caught.value)
        assert self.state(run) == before
        (pack,) = self.store.packs(run)
        assert pack.out


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    with Store.open(tmp_path / "store") as store:
        fan = InProcess(tmp_path / "store" / "spool")
        yield Farm(store, tmp_path, fan)
        fan.close()


def measured(attempt: AttemptInfo) -> Any:
    """All of an attempt that must not depend on how its device was reached."""
    result = attempt.result
    assert result is not None
    return (
        [(o["name"], o["blob"], o["dtype"], o["shape"]) for o in result["outputs"]],
        {r: b for r, b in attempt.artefacts.items() if r.startswith(("output", "sample"))},
        {k: v for k, v in result["backend"].items() if k != "build_ns"},
        (result["repeats"], result["model_sha256"], result["input_sha256"], result["bundle"]),
        (attempt.state, attempt.codes_valid, attempt.environment, attempt.device),
    )


def test_the_attempt_is_the_online_one_bit_for_bit(farm: Farm, tiny: Tiny) -> None:
    online, away = farm.queued(tiny), farm.queued(tiny)
    assert farm.finish(online) is not None
    packed = farm.pack(away)
    assert (packed.device, len(packed.cells), packed.kept) == ("bench", 2, {})
    done = farm.ingest(farm.away(packed))
    assert {(o, s) for o, s in done.cells.values()} == {("ok", CellState.DONE)}
    assert (done.run, done.left) == (away, 0)
    there, here_ = farm.attempts(away), farm.attempts(online)
    assert {c: measured(a) for c, a in there.items()} == {c: measured(a) for c, a in here_.items()}
    assert {a.offline for a in there.values()} == {packed.nonce}
    assert {a.offline for a in here_.values()} == {None}
    document = farm.finish(away)
    assert document is not None
    assert document["verdict"] == "pass"
    assert [a["offline"] for a in document["attempts"]] == [True, True]
    assert all("run by hand" in " ".join(a["notes"]) for a in document["attempts"])
    assert farm.store.run(away).state is RunState.DONE
    assert farm.store.packs(away) == []


def test_equal_manifests_make_equal_archives(farm: Farm, tiny: Tiny) -> None:
    from orchestrator.coordinator.jobs import order_for
    from orchestrator.offline.pack import write
    from orchestrator.runs.snapshot import load_run
    from orchestrator.store.records import Claim

    run = farm.queued(tiny)
    packed = farm.pack(run)
    (info,) = farm.store.packs(run)
    frozen, cells = load_run(farm.store.frozen(run)), farm.store.cells(run)
    orders = [
        order_for(Claim(a, 1, "bench", 0, cell), frozen, farm.store.artefacts, "f")
        for cell in cells
        for a, c in info.out.items()
        if c == cell.id
    ]
    again = farm.folder / "again.tar.gz"
    assert write(again, info.manifest, orders)[:16] in packed.path.name
    assert again.read_bytes() == packed.path.read_bytes()


# What is out ---------------------------------------------------------------------------------


def test_packed_cells_are_left_alone_and_end_the_run_inconclusive(farm: Farm, tiny: Tiny) -> None:
    run = farm.queued(tiny)
    packed = farm.pack(run, "*clean*")
    with pytest.raises(NotAvailableError, match="1 cell packed for bench, not ingested") as caught:
        farm.finish(run)
    assert (caught.value.id, caught.value.exit_code) == ("E-PACK-OUTSTANDING", 5)
    attempts = farm.attempts(run)
    assert [attempts[c].state for c in sorted(attempts)] == [AttemptState.RUNNING, AttemptState.OK]
    assert farm.store.run(run).state is RunState.INTERRUPTED
    assert farm.store.leases() == []
    assert farm.ingest(farm.away(packed)).left == 0
    document = farm.finish(run)
    assert document is not None
    assert [a["offline"] for a in document["attempts"]] in ([True, False], [False, True])


def test_no_lease_frees_or_ends_what_is_out(farm: Farm, tiny: Tiny) -> None:
    run = farm.queued(tiny)
    packed = farm.pack(run, "*clean*")
    lease = farm.store.acquire_lease("bench", this_process())
    assert lease is not None
    claim = farm.store.claim(run, lease)
    assert claim is not None
    assert claim.cell.id not in packed.cells
    assert farm.store.cancel_running(lease) == 1
    (seen,) = farm.store.leases()
    assert farm.store.expire(seen) == 0
    (out,) = farm.store.packs(run)
    assert list(out.out.values()) == list(packed.cells)
    assert farm.store.unit_lost(run, "bench") == []


def test_taken_back_they_wait_again_and_the_result_comes_too_late(farm: Farm, tiny: Tiny) -> None:
    run = farm.queued(tiny)
    packed = farm.pack(run)
    result = farm.away(packed)
    assert cancel(farm.store, run) == {packed.nonce: 2}
    with pytest.raises(InputError, match="E-PACK-NONE"):
        cancel(farm.store, run)
    with pytest.raises(InputError, match="E-INGEST-DUPLICATE"):
        farm.ingest(result)
    assert {c.state for c in farm.store.cells(run)} == {CellState.PENDING}
    # Packed again they go out under another nonce, and the old result stays worthless.
    again = farm.pack(run)
    with pytest.raises(InputError, match="E-INGEST-DUPLICATE"):
        farm.ingest(result)
    assert farm.ingest(farm.away(again)).left == 0
    ended = [a.state for a in farm.store.attempts(run)]
    assert sorted(ended) == ["cancelled", "cancelled", "ok", "ok"]
    assert [c.failures for c in farm.store.cells(run)] == [0, 0]


def test_a_slot_with_several_units_needs_one_named(farm: Farm, tiny: Tiny) -> None:
    tiny.devices = [tiny.device("one"), tiny.device("two")]
    tiny.devices[1]["class"] = tiny.devices[0]["class"]
    tiny.matrix["devices"] = [{"class": tiny.devices[0]["class"]}]
    run = farm.queued(tiny)
    with pytest.raises(InputError, match="--device") as caught:
        farm.pack(run)
    assert caught.value.id == "E-PACK-DEVICE"
    with pytest.raises(InputError, match="none of the 2 cells may go to 'three'"):
        farm.pack(run, device="three")
    assert {c.unit for c in farm.store.cells(run)} == {None}
    assert farm.pack(run, "*clean*", device="two").device == "two"
    # The slot is that unit's now, also for what is packed later.
    assert {c.unit for c in farm.store.cells(run)} == {"two"}
    with pytest.raises(InputError, match="E-PACK-DEVICE"):
        farm.pack(run, device="one")
    assert farm.pack(run).device == "two"
    cancel(farm.store, run)
    assert {c.unit for c in farm.store.cells(run)} == {None}


@pytest.mark.parametrize("glob", ["nothing*", "*clean*"])
def test_what_cannot_be_packed(farm: Farm, tiny: Tiny, glob: str) -> None:
    run = farm.queued(tiny)
    if glob == "*clean*":
        assert farm.pack(run, glob)
    with pytest.raises(InputError) as caught:
        farm.pack(run, glob)
    assert (caught.value.id, caught.value.exit_code) == ("E-PACK-CELLS", 2)
    assert farm.finish(farm.queued(tiny)) is not None


def test_cells_that_are_done_or_cannot_run_there(farm: Farm, tiny: Tiny) -> None:
    done = farm.queued(tiny)
    farm.finish(done)
    with pytest.raises(InputError, match="0 running or packed, 2 done"):
        farm.pack(done)
    tiny.devices[0]["python"] = {"litert": sys.executable}
    unable = farm.queued(tiny)
    with pytest.raises(InputError, match="no Python for onnxruntime in the inventory"):
        farm.pack(unable)
    assert {c.state for c in farm.store.cells(unable)} == {CellState.PENDING}


def test_an_archive_that_cannot_be_written_takes_nothing(farm: Farm, tiny: Tiny) -> None:
    run = farm.queued(tiny)
    (farm.folder / "out").write_text("a file")
    with pytest.raises(InputError, match="--out") as caught:
        farm.pack(run)
    assert caught.value.id == "E-PACK-WRITE"
    (farm.folder / "out").unlink()
    blob = next(p for p in farm.store.artefacts.folder.rglob("*") if p.is_file())

    def fails(*arguments: Any) -> str:
        raise InputError("E-PACK-WRITE", "full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.offline.pack.write", fails)
        with pytest.raises(InputError, match="full"):
            farm.pack(run)
    assert blob.exists()
    assert {c.state for c in farm.store.cells(run)} == {CellState.PENDING}
    assert {c.unit for c in farm.store.cells(run)} == {None}
    assert list((farm.folder / "out").iterdir()) == []


# Results that are refused --------------------------------------------------------------------


@pytest.fixture
def result(farm: Farm, tiny: Tiny) -> tuple[str, Path]:
    """A run whose cells are out, and their honest result."""
    run = farm.queued(tiny)
    return run, farm.away(farm.pack(run))


def test_twice(farm: Farm, result: tuple[str, Path]) -> None:
    run, path = result
    farm.ingest(path)
    before = farm.state(run)
    with pytest.raises(InputError, match="ingested before") as caught:
        farm.ingest(path)
    assert caught.value.id == "E-INGEST-DUPLICATE"
    assert farm.state(run) == before


def test_from_another_store(farm: Farm, result: tuple[str, Path], tmp_path: Path) -> None:
    with Store.open(tmp_path / "other") as other, pytest.raises(InputError) as caught:
        ingest(other, result[1])
    assert caught.value.id == "E-INGEST-NONCE"


def test_lost_to_another_ingest_at_the_last_moment(farm: Farm, result: tuple[str, Path]) -> None:
    run, path = result
    real = packs.finish

    def late(store: Store, nonce: str, records: Any) -> Any:
        packs.take_back(store, nonce)
        return real(store, nonce, records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "finish", late)
        with pytest.raises(InputError, match="E-INGEST-DUPLICATE"):
            farm.ingest(path)
    assert {a.state for a in farm.store.attempts(run)} == {AttemptState.CANCELLED}


def test_a_bit_changed_anywhere(farm: Farm, result: tuple[str, Path]) -> None:
    """In the compressed bytes: whatever it hits, nothing is stored."""
    run, path = result
    data = path.read_bytes()
    for at in range(11, len(data), len(data) // 12):
        broken = farm.folder / "broken"
        broken.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        before = farm.state(run)
        with pytest.raises(InputError, match=r"\[E-INGEST-"):
            farm.ingest(broken)
        assert farm.state(run) == before


def test_an_output_that_was_changed(farm: Farm, result: tuple[str, Path]) -> None:
    def one_byte(document: dict[str, Any], files: dict[str, bytes]) -> None:
        name = f"files/{document['answers'][0]['files']['output-0']['sha256']}"
        files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])

    run, path = result
    changed = offline.tampered(path, farm.folder / "t", one_byte)
    farm.refused(run, changed, "E-INGEST-HASH", "other bytes")


def rehash(document: dict[str, Any], files: dict[str, bytes], role: str, data: bytes) -> None:
    """Another file under ``role`` of the first answer, with every hash put right."""
    import hashlib

    answer = document["answers"][0]
    blob = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    old = answer["files"][role]
    answer["files"][role] = blob
    result = answer["result"]
    if role.startswith("output-"):
        result["outputs"][int(role[7:])]["blob"] = blob
    else:
        result["files"][role]["blob"] = blob
    used = {b["sha256"] for a in document["answers"] for b in a["files"].values()}
    if old["sha256"] not in used:
        del files[f"files/{old['sha256']}"]
    files[f"files/{blob['sha256']}"] = data


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def _set(*path: Any, to: Any) -> offline.Change:
    def change(document: dict[str, Any], files: dict[str, bytes]) -> None:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        assert place[path[-1]] != to
        place[path[-1]] = to

    return change


def _file(role: str, make: Callable[[Any], bytes]) -> offline.Change:
    """``make`` is given the honest array, or the bytes of what is none."""

    def change(document: dict[str, Any], files: dict[str, bytes]) -> None:
        honest: Any = files[f"files/{document['answers'][0]['files'][role]['sha256']}"]
        if role != "telemetry":
            honest = np.load(io.BytesIO(honest))
        rehash(document, files, role, make(honest))

    return change


def _swap(document: dict[str, Any], files: dict[str, bytes]) -> None:
    document["answers"].reverse()


def _fewer(document: dict[str, Any], files: dict[str, bytes]) -> None:
    gone = {b["sha256"] for b in document["answers"].pop()["files"].values()}
    kept = {b["sha256"] for b in document["answers"][0]["files"].values()}
    for sha256 in gone - kept:
        del files[f"files/{sha256}"]


FIRST = ("answers", 0)
RESULT = (*FIRST, "result")
SEALED: dict[str, tuple[offline.Change, str, str]] = {
    "another manifest": (_set("manifest_sha256", to="0" * 64), "E-INGEST-HASH", "manifest"),
    "another worker": (_set("worker_sha256", to="0" * 64), "E-INGEST-HASH", "worker"),
    "another nonce": (_set("nonce", to="ab" * 16), "E-INGEST-NONCE", "abababab"),
    "schema": (_set("schema", to="assay.offline-result/9"), "E-INGEST-FORM", "schema"),
    "a field too many": (
        lambda d, f: d.update(more=1), "E-INGEST-FORM", "unknown field 'more'",
    ),
    "a wrong type": (_set("environment", to=[]), "E-INGEST-FORM", "expected"),
    "order": (_swap, "E-INGEST-RESULT", "does not answer"),
    "fewer": (_fewer, "E-INGEST-RESULT", "does not answer"),
    "another attempt": (_set(*FIRST, "attempt", to="f" * 32), "E-INGEST-RESULT", "does not answer"),
    "running": (_set(*FIRST, "outcome", to="running"), "E-INGEST-RESULT", "running"),
    "failed but not": (_set(*FIRST, "outcome", to="model_error"), "E-INGEST-RESULT", "outcome"),
    "no error ID": (_set(*FIRST, "code", to="rm -rf"), "E-INGEST-RESULT", "is no error"),
    "model": (_set(*RESULT, "model_sha256", to="0" * 64), "E-INGEST-RESULT", "not the one asked"),
    "inputs": (_set(*RESULT, "input_sha256", to=["0" * 64]), "E-INGEST-RESULT", "other inputs"),
    "repeats": (_set(*RESULT, "repeats", "count", to=99), "E-INGEST-RESULT", "passes"),
    "no outputs": (_set(*RESULT, "outputs", to=[]), "E-INGEST-RESULT", "0 outputs"),
    "a bundle": (_set(*FIRST, "bundle", to="0" * 64), "E-INGEST-RESULT", "hermetic"),
    "dtype said": (
        _set(*RESULT, "outputs", 0, "dtype", to="float16"), "E-INGEST-RESULT", "model's is float32",
    ),
    "another class": (
        _set("environment", "board", to={"class": "rpi-4"}), "E-INGEST-DEVICE", "'rpi-4'",
    ),
    "another unit": (
        _set("environment", "machine", to="riscv64"), "E-INGEST-DEVICE", "machine",
    ),
    "another answer": (
        _file("output-0", lambda a: npy(a + 1)), "E-INGEST-RESULT", "other outputs than its hash",
    ),
    "fewer samples": (_file("output-0", lambda a: npy(a[:-1])), "E-INGEST-RESULT", "has shape"),
    "pickled": (
        _file("output-0", lambda a: npy(a.astype(object), allow_pickle=True)),
        "E-INGEST-RESULT", "is no .npy",
    ),
    "no npy": (_file("output-0", lambda a: b"PK\x03\x04" * 400), "E-INGEST-RESULT", "is no .npy"),
    "more behind it": (_file("output-0", lambda a: npy(a) + b"!"), "E-INGEST-RESULT", "bytes for"),
    "latency": (_file("latency_ns", lambda a: npy(a[1:])), "E-INGEST-RESULT", "latency_ns"),
    "hashes": (_file("sample_hashes", lambda a: npy(a[::-1])), "E-INGEST-RESULT", "hash says"),
    "hashes cast": (_file("sample_hashes", lambda a: npy(a.view("i1"))), "E-INGEST-RESULT", "int8"),
    "telemetry": (_file("telemetry", lambda data: b"[1]\n"), "E-INGEST-RESULT", "telemetry"),
    "telemetry NaN": (
        _file("telemetry", lambda data: b'{"t_s":0,"values":{"a":NaN}}\n'),
        "E-INGEST-RESULT", "NaN is no number",
    ),
    "latency negative": (
        _file("latency_ns", lambda a: npy(-a)), "E-INGEST-RESULT", "which cannot be",
    ),
    "another shape": (
        _file("output-0", lambda a: npy(a.reshape(len(a), 2, -1))), "E-INGEST-RESULT", "has shape",
    ),
    "tebibytes": (
        _set(*FIRST, "files", "output-0", "size", to=8 << 40), "E-INGEST-RESULT", "its files",
    ),
    "tebibytes said": (
        _set(*RESULT, "outputs", 0, "shape", to=[20, 10**12]), "E-INGEST-RESULT", "does not fit",
    ),
    "a role": (
        lambda d, f: d["answers"][0]["result"]["files"].update(
            {"../x": d["answers"][0]["result"]["files"]["telemetry"]}
        ),
        "E-INGEST-RESULT", "its files are",
    ),
    "a board": (_set(*RESULT, "environment", "board", to=[1]), "E-INGEST-FORM", "board"),
    "its board": (_set("environment", "board", to="x"), "E-INGEST-FORM", "board"),
    "1e308": (_set(*FIRST, "started_unix", to=1e308), "E-INGEST-FORM", "out of range"),
    "10**30": (_set(*RESULT, "load_ns", to=10**30), "E-INGEST-FORM", "out of range"),
    "half a character": (_set(*FIRST, "what", to="\ud800"), "E-INGEST-FORM", "half a character"),
}  # fmt: skip


def test_a_result_that_was_made_up_with_a_right_seal(
    farm: Farm, tiny: Tiny, result: tuple[str, Path]
) -> None:
    run, path = result
    farm.finish(farm.queued(tiny))  # by which the farm knows the unit
    for name, (change, id, what) in SEALED.items():
        made = offline.tampered(path, farm.folder / f"{name}.tar.gz", change)
        farm.refused(run, made, id, what)
    # The honest one is still as good as it was.
    assert farm.ingest(offline.tampered(path, farm.folder / "t", lambda d, f: None)).left == 0


def test_the_unit_that_the_inventory_means(farm: Farm, tiny: Tiny) -> None:
    """Known by a serial, which is asked where the archive is run."""
    shown = tiny.serial("1000000a")
    run = farm.queued(tiny)
    packed = farm.pack(run)
    honest = farm.away(packed).rename(farm.folder / "honest.tar.gz")
    assert offline.read(honest)[0]["facts"] == {"serial": "1000000a"}
    shown.write_text("1000000b")
    farm.refused(run, farm.away(packed), "E-INGEST-DEVICE", "its serial is 1000000b, not 1000000a")
    done = farm.ingest(honest)
    assert (done.left, done.untold) == (0, ())


def test_a_fact_that_the_result_does_not_tell_is_said(farm: Farm, tiny: Tiny) -> None:
    shown = tiny.serial("1000000a")
    tiny.devices[0]["identity"]["machine"] = os.uname().machine
    desk = tiny.folder / "classes" / "desk.yaml"
    desk.write_text(desk.read_text() + "- {parser: uname, command: [uname, -srm]}\n")
    run = farm.queued(tiny)
    packed = farm.pack(run)
    shown.unlink()
    done = farm.ingest(farm.away(packed))
    assert (done.left, done.untold) == (0, ("serial",))


def test_what_an_older_archive_says_of_itself_is_compared(farm: Farm, tiny: Tiny) -> None:
    """Its worker asked for no facts, and told its environment all the same."""
    tiny.devices[0]["identity"] = {"machine": os.uname().machine, "kernel": "2.4", "abi": "x"}
    run = farm.queued(tiny)
    result = farm.away(farm.pack(run))
    older = offline.tampered(result, farm.folder / "t", lambda d, f: d.pop("facts"))
    farm.refused(run, older, "E-INGEST-DEVICE", "its kernel is")


def test_a_document_that_was_changed_after_it_was_sealed(
    farm: Farm, result: tuple[str, Path]
) -> None:
    run, path = result
    change = _set(*RESULT, "run_ns", to=1)
    made = offline.tampered(path, farm.folder / "t", change, sealed=False)
    farm.refused(run, made, "E-INGEST-HASH", "changed after it was written")
    for text in (b"", b"[]", b"{", b'{"a":' * 100_000, b"\xff"):
        made = offline.write(farm.folder / "t", text, {})
        farm.refused(run, made, "E-INGEST-FORM")


EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(0, 64), st.binary(max_size=16)),
    min_size=1,
    max_size=3,
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)  # a document with others has no seal
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
FUZZED = 80


def test_fuzzed_archives(
    farm: Farm, result: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Other bytes in the tar, and other values in a document that is sealed again."""
    run, path = result
    document, _ = offline.read(path)
    bytes_of_tar, before = gzip.decompress(path.read_bytes()), farm.state(run)
    around = sorted(farm.folder.iterdir())
    made, count = farm.folder / "fuzzed", Counter[str]()

    def accepted(_: Store, nonce: str, records: Any) -> None:
        """Everything was checked, and this would be stored now."""
        raise InputError("E-INGEST-ACCEPTED", repr(records))

    def tried(what: str, path: Path = made) -> str:
        count[what] += 1
        with pytest.raises(InputError, match=r"\[E-INGEST-") as caught:
            farm.ingest(path)
        assert "\n" not in str(caught.value)
        return caught.value.what if caught.value.id == "E-INGEST-ACCEPTED" else ""

    @settings(max_examples=FUZZED, deadline=None, suppress_health_check=list(HealthCheck))
    @given(edits=EDITS)
    def archives(edits: list[tuple[int, int, bytes]]) -> None:
        data = bytes_of_tar
        for place, gone, new in edits:
            at = place % (len(data) + 1)
            data = data[:at] + new + data[at + gone :]
        if data != bytes_of_tar:
            made.write_bytes(gzip.compress(data, 1))
            assert tried("archives") in ("", honest)  # beside its files stands what nobody reads

    @settings(max_examples=FUZZED, deadline=None, suppress_health_check=list(HealthCheck))
    @given(place=st.sampled_from(sorted(_places(document), key=repr)), value=VALUES)
    def documents(place: tuple[Any, ...], value: Any) -> None:
        def change(document: dict[str, Any], files: dict[str, bytes]) -> None:
            inner: Any = document
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value

        offline.tampered(path, made, change)
        tried("documents")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "finish", accepted)
        honest = tried("honest", path)
        assert honest
        archives()
        documents()
    with capsys.disabled():
        sys.stdout.write(f"\nfuzzed offline {dict(count)}\n")
    assert sorted(farm.folder.iterdir()) == sorted([*around, made])
    assert farm.state(run) == before
    assert farm.ingest(path).left == 0


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a document, objects and lists too."""
    if path:
        yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from _places(value[key], (*path, key))


# What happens there --------------------------------------------------------------------------


def test_every_outcome_comes_back(farm: Farm, tiny: Tiny, tmp_path: Path) -> None:
    """A runtime that is not there, one that is killed, a cell that takes too long."""
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    tiny.matrix["conditions"] = ["clean"]
    lite = {"name": "int8", "path": str(MODELS / "digits_cnn.int8.tflite"), "layout": "same"}
    tiny.matrix["models"][0]["files"].append(lite)
    tiny.matrix["runtimes"] += [
        {"name": "lite", "runtime": "litert"},
        {"name": "old", "runtime": "tflite-runtime"},
    ]
    tiny.devices[0]["python"] |= {"litert": str(killed), "tflite-runtime": "/no/such/python"}
    run = farm.queued(tiny)
    done = farm.ingest(farm.away(farm.pack(run)))
    told = {c.rpartition("-")[2]: o for c, (o, _) in done.cells.items()}
    assert told == {"ort": "ok", "lite": "infra_error", "old": "not_available"}
    ids = {c.rpartition("-")[2]: a.error_id for c, a in farm.attempts(run).items()}
    assert ids == {"ort": None, "lite": "E-WORKER-KILLED", "old": "E-RUNTIME-MISSING"}
    # Trouble of the device's own is worth another attempt, wherever that is made.
    assert {c.state for c in farm.store.cells(run) if "lite" in c.id} == {CellState.PENDING}
    assert done.left == 1


def test_a_cell_that_takes_too_long_is_ended(farm: Farm, tiny: Tiny) -> None:
    tiny.matrix["conditions"] = ["repeat:100000"]
    tiny.matrix["timeouts"] = {"cell": 2}
    run = farm.queued(tiny)
    (cell,) = farm.ingest(farm.away(farm.pack(run))).cells.values()
    assert cell == ("timeout", CellState.DONE)
    (attempt,) = farm.attempts(run).values()
    assert (attempt.error_id, attempt.result) == ("E-CELL-TIMEOUT", None)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: next(f.glob("cache/*/*")).write_bytes(b"x"), "-HASH]"),
        (lambda f: next(f.glob("cache/*/*")).unlink(), "[E-CACHE-MISS]"),
        (
            lambda f: (f / "manifest.json").write_text(
                (f / "manifest.json").read_text().replace('"samples":20', '"samples":19')
            ),
            "manifest.json is damaged: it is not the one that was packed",
        ),
    ],
    ids=["damaged", "missing", "manifest"],
)
def test_what_can_be_fixed_there_makes_no_result(
    farm: Farm, tiny: Tiny, spoil: Callable[[Path], Any], said: str
) -> None:
    packed = farm.pack(farm.queued(tiny))
    folder = offline.unpack(packed.path, farm.folder / "away")
    spoil(folder)
    done = offline.by_hand(folder)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, said in line) == (70, True), line
    assert not list(folder.glob("assay-result-*"))
    assert not list(folder.glob("out/*"))


def test_a_full_disk_is_one_line_and_no_result(farm: Farm, tiny: Tiny) -> None:
    archive = farm.pack(farm.queued(tiny)).path
    place = farm.folder / "disk"
    place.mkdir()
    # A disk of its own in a mount namespace of its own; what is left of it is filled up.
    script = (
        f"mount -t tmpfs -o size=600k none {place} && cd {place} && tar -xzf {archive} &&"
        " cd assay-pack-* && { cat /dev/zero > fill; sh run.sh 2> /dev/shm/$$.err;"
        " echo code $?; cat /dev/shm/$$.err; rm -f /dev/shm/$$.err; ls; } 2> /dev/null"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    if "code" not in done.stdout:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    code, line, *files = done.stdout.splitlines()
    assert (code, line.endswith("[E-DISK-FULL]")) == ("code 70", True), done.stdout
    assert not [name for name in files if name.startswith("assay-result")]


def test_it_can_be_run_again_and_with_another_python(farm: Farm, tiny: Tiny) -> None:
    tiny.devices[0]["python"] = {"default": "/only/on/the/device/python3"}
    packed = farm.pack(farm.queued(tiny))
    folder = offline.unpack(packed.path, farm.folder / "away")
    assert "[E-DEVICE-PYTHON]" in offline.by_hand(folder).stderr
    for _ in range(2):
        done = offline.by_hand(folder, sys.executable)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines()[0].startswith("1/2 ")
    assert farm.ingest(offline.result_of(folder)).left == 0


def test_the_gate_is_judged_by_what_was_read_there(farm: Farm, tiny: Tiny) -> None:
    tiny.matrix["conditions"] = ["clean"]
    tiny.matrix["gate"] = {"max_start_c": -50, "settle_s": 0}
    run = farm.queued(tiny)
    farm.ingest(farm.away(farm.pack(run)))
    (attempt,) = farm.attempts(run).values()
    assert attempt.result is not None
    assert (attempt.codes_valid, attempt.timing_valid) == (True, False)
    assert "temperature unknown" in attempt.result["timing_notes"][0] or (
        "over the limit" in attempt.result["timing_notes"][0]
    )


def test_a_hermetic_python_travels_with_it(farm: Farm, tiny: Tiny) -> None:
    bundle = native()
    tiny.file.update(name="int8", path=str(MODELS / "digits_cnn.int8.tflite"), layout="same")
    tiny.matrix["runtimes"] = [{"name": "lite", "runtime": "litert"}]
    tiny.matrix["conditions"] = ["clean"]
    tiny.policy["reference"] = [{"device": "bench", "runtime": "lite"}]
    tiny.devices[0]["python"] = {"litert": f"bundle:{bundle.name}"}
    online, away = farm.queued(tiny), farm.queued(tiny)
    farm.finish(online)
    result = farm.away(farm.pack(away))
    farm.ingest(result)
    (one,), (other,) = farm.attempts(online).values(), farm.attempts(away).values()
    assert measured(one) == measured(other)
    assert other.result is not None
    assert other.result["bundle"] == {"name": bundle.name, "sha256": bundle.sha256}
    assert json.loads((result.parent / "manifest.json").read_text())["bundles"] == {
        bundle.sha256: bundle.size
    }


def test_a_stale_nonce_ends_nothing_in_the_store(farm: Farm, tiny: Tiny) -> None:
    run = farm.queued(tiny)
    packed = farm.pack(run)
    (info,) = farm.store.packs(run)
    (attempt, *_) = info.out
    with pytest.raises(InfraError, match="E-LEASE-STALE"):
        packs.finish(farm.store, "another", {attempt: packs.TAKEN_BACK})
    with pytest.raises(InfraError, match="E-LEASE-STALE"):
        farm.store.finish(attempt, 0, packs.TAKEN_BACK)
    assert len(farm.store.packs(run)[0].out) == len(packed.cells)
