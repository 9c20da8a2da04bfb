"""Temporary folders of processes that were killed go at the next start; nobody else's do."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from device_worker import scratch
from orchestrator.fanout.sessions import MARK, settle

CODE = (
    "import tempfile, time; tempfile.tempdir = {folder!r}\n"
    "from device_worker.scratch import scratch\n"
    "with scratch('cell') as made: print(made, flush=True); time.sleep(600)"
)


def at_work(folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A real process with a scratch folder in ``folder``."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE.format(folder=str(folder))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    made = Path(process.stdout.readline().strip())
    (made / "answer").write_bytes(b"x" * 100)
    return process, made


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(
    tmp_path: Path,
) -> None:
    dead, left = at_work(tmp_path)
    living, used = at_work(tmp_path)
    try:
        ended(dead)
        assert left.is_dir()
        assert scratch.sweep(str(tmp_path)) == 1
        assert not left.exists()
        assert (used / "answer").exists()
    finally:
        ended(living)
    assert scratch.sweep(str(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_with_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch.scratch("sql") as made:
        assert Path(made).parent == tmp_path
        assert scratch.sweep(str(tmp_path)) == 0, "its process is this one"
    assert not Path(made).exists()


@pytest.mark.parametrize(
    ("name", "removed"),
    [
        ("assay-cell-{realm}-{pid}-{start}-abcd1234", False),
        ("assay-cell-{realm}-{pid}-{other}-abcd1234", True),  # the number was given again
        ("assay-cell-{realm}-{pid}-0-abcd1234", False),  # it could not read its own start
        ("assay-cell-00000000-{pid}-{other}-abcd1234", False),  # in another container, or boot
        ("assay-cell-{realm}-4194305-77-abcd1234", True),  # above what Linux gives
        ("assay-abcd1234", False),  # an older Assay's
        ("assay-cell-{realm}-{pid}-{other}-abcd1234.bak", False),
        ("other-cell-{realm}-{pid}-{other}-abcd1234", False),
    ],
)
def test_only_what_is_certainly_a_dead_process_goes(
    name: str, removed: bool, tmp_path: Path
) -> None:
    realm, pid, start = scratch.owner().split("-")
    made = tmp_path / name.format(realm=realm, pid=pid, start=start, other=int(start) + 1)
    made.mkdir()
    assert scratch.sweep(str(tmp_path)) == removed
    assert made.exists() is not removed


def test_links_files_and_what_is_another_users_stay(tmp_path: Path) -> None:
    realm, pid, start = scratch.owner().split("-")
    dead = f"assay-cell-{realm}-{pid}-{int(start) + 1}"
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "data").write_text("x")
    (tmp_path / f"{dead}-linklink").symlink_to(kept)
    (tmp_path / f"{dead}-filefile").write_text("x")
    (tmp_path / f"{dead}-insideit").mkdir()
    (tmp_path / f"{dead}-insideit" / "out").symlink_to(kept)
    expected = 1
    if os.geteuid() == 0:
        (tmp_path / f"{dead}-stranger").mkdir()
        os.chown(tmp_path / f"{dead}-stranger", 65534, 65534)
        expected = 1
    assert scratch.sweep(str(tmp_path)) == expected
    assert (kept / "data").read_text() == "x"
    assert scratch.sweep(str(tmp_path / "nowhere")) == 0


def test_of_rays_sessions_only_a_dead_coordinators_own_go(tmp_path: Path) -> None:
    realm, pid, start = scratch.owner().split("-")
    marks = {
        "session_dead": f"{realm}-{pid}-{int(start) + 1}",
        "session_alive": f"{realm}-{pid}-{start}",
        "session_strange": "what is this",
        "session_elsewhere": f"00000000-{pid}-{int(start) + 1}",
        "session_of_others": None,
    }
    for name, mark in marks.items():
        (tmp_path / name / "logs").mkdir(parents=True)
        if mark:
            (tmp_path / name / MARK).write_text(mark)
    (tmp_path / "session_latest").symlink_to(tmp_path / "session_dead")
    mine = tmp_path / "session_mine"
    mine.mkdir()
    assert settle(mine) == 1
    assert {p.name for p in tmp_path.glob("session_*") if p.is_dir()} == {
        *marks.keys() - {"session_dead"},
        "session_mine",
    }
    assert (mine / MARK).read_text() == scratch.owner()
