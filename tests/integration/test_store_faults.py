"""Locked, read-only, full, spoilt: one clear error each, and nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from orchestrator.errors import AssayError, InfraError, InputError
from orchestrator.store.artefacts import Artefacts
from orchestrator.store.database import Store
from orchestrator.store.readonly import glance
from orchestrator.store.sqlite import open_sqlite
from tests.integration.store_kit import add_devices, cells, samples

REPO = Path(__file__).parents[2]


def look(root: Path) -> None:
    with glance(root) as reader:
        reader.runs()


def caught_by(act: Callable[[], object]) -> AssayError:
    with pytest.raises(AssayError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_lock_that_is_not_given_up_is_named_and_one_that_is_is_waited_for(
    tmp_path: Path,
) -> None:
    with Store.open(tmp_path, busy_timeout=0.2) as store:
        add_devices(store, "pi")
        other = sqlite3.connect(
            tmp_path / "assay.db", isolation_level=None, check_same_thread=False
        )
        other.execute("BEGIN IMMEDIATE")
        error = caught_by(lambda: store.create_run(name="r", frozen={}, cells=cells(1)))
        assert error.id == "E-STORE-LOCKED"
        assert isinstance(error, InfraError)
        assert error.retryable
        assert store.runs() == []  # readers are not in the way of a writer, nor it in theirs
        look(tmp_path)
        release = threading.Timer(0.05, other.execute, ["ROLLBACK"])
        release.start()
        assert store.create_run(name="r", frozen={}, cells=cells(1)) == store.run().id
        release.join()
        other.close()


def test_a_store_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        add_devices(store, "pi")
        run = store.create_run(name="r", frozen={}, cells=cells(1))
    with Store.open(tmp_path, readonly=True) as store:
        assert store.run().id == run
        error = caught_by(lambda: store.create_run(name="r", frozen={}, cells=cells(1)))
        assert error.id == "E-STORE-READONLY"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that another user may enter (pytest's own are closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="assay-shared-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not write")
def test_another_users_store_can_be_read_but_not_written(shared: Path) -> None:
    with Store.open(shared) as store:
        add_devices(store, "pi")
        run = store.create_run(name="r", frozen={}, cells=cells(1))
    script = (
        "import os, sys; from pathlib import Path\n"
        "from orchestrator.errors import AssayError\n"
        "from orchestrator.store.database import Store\n"
        "from orchestrator.store.readonly import glance\n"
        "import orchestrator.store.migrate\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "with glance(Path(sys.argv[1])) as reader: print(reader.run().id)\n"
        "try: Store.open(Path(sys.argv[1]))\n"
        "except AssayError as error: print(error.id)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(shared)],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [run, "E-STORE-READONLY"]


@pytest.mark.parametrize("content", [b"x" * 100, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "assay.db").write_bytes(content)
    for act in (lambda: Store.open(tmp_path), lambda: look(tmp_path)):
        assert caught_by(act).id == "E-STORE-CORRUPT"
    assert (tmp_path / "assay.db").read_bytes() == content


def test_a_database_cut_short(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.create_run(name="r", frozen={"a": "x" * 100_000}, cells=cells(50))
    path = tmp_path / "assay.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])

    def read_all() -> None:
        with glance(tmp_path) as reader:
            reader.frozen(reader.run().id)

    assert caught_by(read_all).id == "E-STORE-CORRUPT"


def test_nothing_there_to_read(tmp_path: Path) -> None:
    for act in (lambda: look(tmp_path), lambda: Store.open(tmp_path, readonly=True)):
        error = caught_by(act)
        assert isinstance(error, InputError)
        assert error.id == "E-STORE-MISSING"
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "farm").write_text("")
    assert caught_by(lambda: Store.open(tmp_path / "farm")).id == "E-STORE-OPEN"
    (tmp_path / "b" / "assay.db").mkdir(parents=True)
    assert caught_by(lambda: Store.open(tmp_path / "b")).id == "E-STORE-OPEN"


def test_a_full_disk_rolls_the_whole_run_back(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        add_devices(store, "pi")
        store.close()  # the next connections are made anew, with a limit that acts like a disk's

        @event.listens_for(store.database.engine, "connect")
        def limit(connection: sqlite3.Connection, _: object) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 10}")

        error = caught_by(lambda: store.create_run(name="r", frozen={}, cells=cells(5000)))
        assert error.id == "E-DISK-FULL"
        assert store.runs() == []


def test_artefacts_are_named_by_content_and_kept_once(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path / "a")
    source = tmp_path / "f"
    source.write_bytes(b"abc" * 1_000_000)
    blob = artefacts.put_file(source)
    assert artefacts.put_bytes(b"abc" * 1_000_000) == blob
    assert blob.size == 3_000_000
    assert artefacts.path(blob.sha256) == tmp_path / "a" / blob.sha256[:2] / blob.sha256
    assert artefacts.read(blob.sha256) == source.read_bytes()
    assert [p for p in (tmp_path / "a").rglob("*") if p.is_file()] == [artefacts.path(blob.sha256)]
    assert artefacts.put_bytes(b"").size == 0


def test_a_spoilt_artefact_is_never_handed_out_and_a_new_put_replaces_it(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path)
    blob = artefacts.put_bytes(b"abcdef")
    for spoilt in (b"abcdeX", b"abc"):
        artefacts.path(blob.sha256).write_bytes(spoilt)
        for act in (
            lambda: artefacts.read(blob.sha256),
            lambda: artefacts.verify(blob.sha256),
        ):
            assert caught_by(act).id == "E-ARTEFACT-CORRUPT"
    assert caught_by(lambda: artefacts.require([blob])).id == "E-ARTEFACT-CORRUPT"
    assert artefacts.read(blob.sha256, verify=False) == b"abc"
    artefacts.put_bytes(b"abcdef")
    assert artefacts.read(blob.sha256) == b"abcdef"
    artefacts.verify(blob.sha256)


def test_a_file_with_another_hash_than_expected_is_not_kept(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path / "a")
    source = tmp_path / "f"
    source.write_bytes(b"abc")
    error = caught_by(lambda: artefacts.put_file(source, expect="0" * 64))
    assert error.id == "E-ARTEFACT-CORRUPT"
    assert list((tmp_path / "a").iterdir()) == []
    assert caught_by(lambda: artefacts.put_file(tmp_path / "none")).id == "E-STORE-OPEN"
    assert caught_by(lambda: artefacts.path("0" * 64)).id == "E-ARTEFACT-MISSING"
    assert caught_by(lambda: artefacts.path("../../etc/passwd")).id == "E-ARTEFACT-MISSING"


def test_a_disk_that_fills_while_an_artefact_is_written_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Store.open(tmp_path) as store:
        monkeypatch.setattr(os, "fsync", full)
        assert caught_by(lambda: samples(store, 1)).id == "E-DISK-FULL"
    assert list((tmp_path / "artefacts").iterdir()) == []


def test_the_switch_to_wal_waits_for_readers(tmp_path: Path) -> None:
    path = tmp_path / "assay.db"
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("CREATE TABLE t (a)")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_sqlite(path, readonly=False, busy_timeout=0.1)
    release = threading.Timer(0.2, reader.execute, ["ROLLBACK"])
    release.start()
    writer = open_sqlite(path, readonly=False, busy_timeout=10)
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    release.join()
    reader.close()
    writer.close()


def test_many_may_switch_new_databases_to_wal_at_the_same_moment(tmp_path: Path) -> None:
    failures: list[sqlite3.Error] = []

    def switch(path: Path, together: threading.Barrier) -> None:
        together.wait()
        try:
            open_sqlite(path, readonly=False, busy_timeout=10).close()
        except sqlite3.Error as error:
            failures.append(error)

    # SQLite alone answers about one switch in a hundred with "locked", without waiting.
    for round in range(50):
        together = threading.Barrier(6)
        threads = [
            threading.Thread(target=switch, args=(tmp_path / f"{round}.db", together))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_what_a_killed_process_was_putting_goes_with_the_next_put(tmp_path: Path) -> None:
    """Half a file of a process that is gone; that of one at work stays."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from orchestrator.store.artefacts import Artefacts\n"
        "def chunks():\n"
        "    yield b'half'\n"
        "    print('half', flush=True)\n"
        "    time.sleep(600)\n"
        "Artefacts(Path(sys.argv[1]))._put(chunks())\n"
    )
    putting = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for process in putting:
            assert process.stdout is not None
            assert process.stdout.readline() == b"half\n"
        putting[0].kill()
        putting[0].wait()
        assert len(list(tmp_path.iterdir())) == 2
        blob = Artefacts(tmp_path).put_bytes(b"whole")
        left = {p.name for p in tmp_path.iterdir()} - {blob.sha256[:2]}
        assert [str(putting[1].pid) in name for name in left] == [True]
    finally:
        for process in putting:
            process.kill()
            process.communicate()
