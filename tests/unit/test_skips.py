"""Tests that cannot run here are skipped with a reason and a count, and never silently."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import conftest
from tests.support.cli import REPO

MARKED = """
import pytest

@pytest.mark.farm
def test_board(): pass

@pytest.mark.realmodels
def test_model(): pass

@pytest.mark.farm
@pytest.mark.realmodels
def test_both(): pass

def test_plain(): pass
"""


def run(tmp_path: Path, *arguments: str, **environment: str) -> str:
    (tmp_path / "test_marked.py").write_text(MARKED)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    plain = {k: v for k, v in os.environ.items() if k not in ("ASSAY_FARM", "ASSAY_REALMODELS")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        [*command, "-c", str(REPO / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=REPO,
        env=plain | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_skips_are_counted_with_their_reasons(tmp_path: Path) -> None:
    out = run(tmp_path, ASSAY_FARM="0")
    assert "1 passed, 3 skipped" in out
    assert "virtual boards: skipped 2 (" in out
    assert "virtual boards: ASSAY_FARM=0" in out
    assert "real models: skipped 2 (" in out
    assert "real models: $ASSAY_REALMODELS is not set" in out


def test_tests_taken_away_by_hand_are_not_counted(tmp_path: Path) -> None:
    out = run(tmp_path, "-m", "not farm", ASSAY_FARM="0")
    assert "1 passed, 1 skipped, 2 deselected" in out
    assert "virtual boards:" not in out
    assert "real models: skipped 1 (" in out


def test_what_is_said_to_be_there_is_not_skipped(tmp_path: Path) -> None:
    out = run(tmp_path, ASSAY_FARM="1", ASSAY_REALMODELS=str(tmp_path))
    assert "4 passed" in out
    assert "skipped" not in out


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    out = run(tmp_path, ASSAY_FARM="0", ASSAY_REALMODELS=str(tmp_path / "nowhere"))
    assert f"no folder {tmp_path / 'nowhere'}" in out


def test_boards_are_asked_for_an_ssh_greeting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = {"host": "127.0.0.1", "port": server.getsockname()[1]}
        for words, expected in ((b"SSH-2.0-x\r\n", True), (b"HTTP/1.1 200\r\n", False)):
            answer = threading.Thread(target=_greet, args=(server, words))
            answer.start()
            assert conftest._greets(dict(address)) is expected
            answer.join()
    assert conftest._greets(dict(address)) is False


def _greet(server: socket.socket, words: bytes) -> None:
    link, _ = server.accept()
    with link:
        link.sendall(words)


def test_silent_boards_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASSAY_FARM", raising=False)
    monkeypatch.setattr(conftest, "_greets", lambda address: address["host"] != "127.77.0.13")
    assert conftest.farm_trouble.__wrapped__() == "no answer from qemu-a76 (make farm)"
