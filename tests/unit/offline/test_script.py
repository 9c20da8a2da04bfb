"""run.sh without the rest: what it says when it cannot start, in every shell that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.devices.bundle import BOOTSTRAP, worker_bundle
from orchestrator.offline.script import run_script

SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(shutil.which(shell[0]) is None, reason="no such"))
    for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"], ["mksh"], ["zsh"])
]


def script(python: str = sys.executable, *, bundle: str | None = None) -> str:
    return run_script(
        run="20261121-run",
        device="pi\nrm -rf /",
        count=2,
        result="assay-result-0.tar.gz",
        python=python,
        bundle=bundle,
        bundles={bundle: 10} if bundle else {},
        worker_sha256=worker_bundle().sha256,
        manifest_sha256="0" * 64,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.sh").write_text(script())
    (tmp_path / "start.py").write_text(BOOTSTRAP)
    (tmp_path / "worker.pyz").write_bytes(worker_bundle().data)
    (tmp_path / "manifest.json").write_text("{}")
    return tmp_path


def run(
    folder: Path, shell: list[str], *arguments: str, cwd: Path | None = None
) -> tuple[int, str]:
    """Exit status and the one line it says."""
    done = subprocess.run(
        [*shell, str(folder / "run.sh") if cwd else "run.sh", *arguments],
        cwd=cwd or folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def test_names_in_its_comments_stay_there() -> None:
    assert "rm" not in [line.split()[0] for line in script().splitlines() if line.split()]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_failure_is_one_line(folder: Path, shell: list[str]) -> None:
    code, line = run(folder, shell)
    assert (code, "manifest.json is damaged" in line, "[E-WIRE]" in line) == (70, True, True)
    code, line = run(folder, shell, "./no/python", cwd=folder.parent)
    assert (code, line) == (
        3,
        f"assay: there is no Python at {folder.parent}/./no/python: name one with"
        " sh run.sh PYTHON [E-DEVICE-PYTHON]",
    )
    code, line = run(folder, shell, "/etc/passwd")
    assert (code, line.endswith("[E-DEVICE-PYTHON]")) == (3, True)
    with (folder / "worker.pyz").open("ab") as file:
        file.write(b"x")
    code, line = run(folder, shell)
    assert (code, line) == (
        3,
        "assay: worker.pyz is damaged: unpack the archive again [E-WORKER-HASH]",
    )
    (folder / "worker.pyz").unlink()
    assert run(folder, shell) == (3, "assay: worker.pyz is missing: unpack the archive again")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_hermetic_python_is_hashed_before_it_is_unpacked(folder: Path, shell: list[str]) -> None:
    (folder / "run.sh").write_text(script("bundle:x", bundle="ab" * 32))
    (folder / "bundles").mkdir()
    (folder / "bundles" / ("ab" * 8 + ".tar.gz")).write_bytes(b"not those bytes")
    code, line = run(folder, shell)
    assert (code, line.endswith("[E-BUNDLE-HASH]")) == (3, True)
    assert not (folder / "python").exists()
