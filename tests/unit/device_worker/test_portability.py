"""What lets the worker start on a bare device: old Pythons, no packages, no files of its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.device_worker.harness import BOOTSTRAP, REPO, bundle

SOURCES = sorted((REPO / "device_worker").rglob("*.py"))
NEEDS_NUMPY = {"batch", "arrays", "feed", "measure", "outputs", "runtimes.onnx", "runtimes.tflite"}
PYENV = Path.home() / ".pyenv" / "versions"


def module(path: Path) -> str:
    name = ".".join(path.relative_to(REPO).with_suffix("").parts)
    return name.removesuffix(".__init__").removesuffix("device_worker")


def python(version: str) -> str:
    found = PYENV / version / "bin" / "python"
    if not found.exists():
        pytest.skip(f"no Python {version} on this machine")
    return str(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_sources_are_python_3_9_and_know_nothing_of_the_orchestrator(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names = [node.module or ""]
        else:
            continue
        assert not [name for name in names if name.partition(".")[0] == "orchestrator"]


def test_no_source_looks_for_files_beside_itself() -> None:
    for path in SOURCES:
        assert "__file__" not in path.read_text(), f"{path} would not work from a zip"


def test_modules_are_short() -> None:
    assert max(len(path.read_text().splitlines()) for path in SOURCES) <= 400


_BARE = [module(path) for path in SOURCES]
_BARE = [name for name in _BARE if name.removeprefix("device_worker.") not in NEEDS_NUMPY]


def imports(interpreter: str, archive: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    names = [name for name in _BARE if name and not name.endswith("__main__")]
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import {', '.join(names)}"
    return subprocess.run(
        [interpreter, *flags, "-c", code, str(archive)], capture_output=True, text=True
    )


def test_everything_but_measuring_imports_with_the_standard_library_alone(tmp_path: Path) -> None:
    done = imports(sys.executable, bundle(tmp_path), "-I", "-S")
    assert done.returncode == 0, done.stderr


def test_everything_but_measuring_imports_on_the_oldest_python(tmp_path: Path) -> None:
    done = imports(python("3.9.18"), bundle(tmp_path), "-I", "-S")
    assert done.returncode == 0, done.stderr


def test_a_session_on_the_oldest_python_without_any_package(tmp_path: Path) -> None:
    root = tmp_path / "root"
    requests = b'{"op":"facts","id":1}\n{"op":"noop","id":2}\n{"op":"bye","id":3}\n'
    argv = ["session", "--root", str(root), "--owner", "a", "--token", "1"]
    done = subprocess.run(
        [python("3.9.18"), "-I", "-S", "-c", BOOTSTRAP, str(bundle(tmp_path)), *argv],
        input=requests,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    kinds = [line.split(b'"type":"')[1].split(b'"')[0] for line in done.stdout.splitlines()]
    assert kinds == [b"hello", b"facts", b"done", b"bye"]


@pytest.mark.parametrize("version", ["2.7.18", "3.6.15", "3.7.16", "3.8.18"])
def test_an_older_python_gets_one_clear_line(tmp_path: Path, version: str) -> None:
    argv = ["session", "--root", str(tmp_path), "--owner", "a", "--token", "1"]
    done = subprocess.run(
        [python(version), "-c", BOOTSTRAP, str(bundle(tmp_path)), *argv],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 78
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "is too old" in line
    assert "[E-PYTHON-OLD]" in line
