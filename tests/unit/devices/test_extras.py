"""Clock, disk, board file and lease, by a shell alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator.devices.findings import Extras
from orchestrator.devices.shell_facts import SCRIPT, board_of, granted, holder, parsed, read_extras
from orchestrator.transports import LocalSettings, open_transport

SHELLS = [s for s in ("dash", "bash", "mksh", "ksh", "busybox") if shutil.which(s)]


def lease(root: Path, owner: str | None, counter: int = 1) -> None:
    state: dict[str, object] = {
        "owner": owner,
        "token": 1,
        "counter": counter,
        "pids": [],
        "highest": {},
    }
    (root / "lease.json").write_text(json.dumps(state))


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_tells_them(tmp_path: Path, shell: str) -> None:
    root = tmp_path / "a $(touch x) 'root'"
    (root / "bundles" / "one").mkdir(parents=True)
    (root / "bundles" / "one" / ".complete").touch()
    (root / "bundles" / "half").mkdir()
    lease(root, "farm")
    argv = [shell, "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*argv, "-c", SCRIPT, "sh", "NONCE", str(root)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    found = parsed(done.stdout, "NONCE", time.time())
    assert found.clock_s is not None
    assert abs(found.clock_s) < 60
    free = os.statvfs(root)
    assert found.free == pytest.approx(free.f_bavail * free.f_frsize, rel=0.2)
    assert found.bundles == 1
    assert granted(found) == ("farm", [1, 1])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "text",
    ["", "NONCE clock\nnot a date\nNONCE free\nFilesystem\nNONCE board\n\nNONCE lease\n"],
)
def test_what_is_not_told_is_not_known(text: str) -> None:
    assert parsed(text, "NONCE", 0.0) == Extras()


def test_the_offset_is_the_device_less_ours() -> None:
    assert parsed("NONCE clock\n1000\n", "NONCE", 400.0).clock_s == 600.0


def test_board_files() -> None:
    assert board_of(Extras()) is None
    assert board_of(Extras(board='{"class": "x"}')) == {"class": "x"}
    assert board_of(Extras(board="{")) == {}


@pytest.mark.parametrize("text", [None, "{", "[]", "null", '{"owner": null, "counter": 3}'])
def test_a_lease_that_nobody_holds(text: str | None) -> None:
    assert granted(Extras(lease=text)) is None


def test_a_holder_is_alive_when_its_counter_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.devices.shell_facts.BEAT_S", 0.01)
    with open_transport(LocalSettings(root=str(tmp_path)), device="x") as transport:
        lease(tmp_path, "other", 1)
        seen = read_extras(transport, timeout=30)
        assert holder(transport, "me", seen, timeout=30) is None, "it stands still"
        lease(tmp_path, "other", 2)
        assert holder(transport, "me", seen, timeout=30) == "other"
        assert holder(transport, "other", seen, timeout=30) is None, "it is ours"
        lease(tmp_path, None, 2)
        assert holder(transport, "me", seen, timeout=30) is None, "it was given back"
