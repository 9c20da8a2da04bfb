"""The bundle of this machine's own architecture: built for real, and run."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.hermetic import native

LOOK = """
import json, sys
import ctypes, ssl, bz2, lzma, uuid, hashlib, subprocess
import numpy
from ai_edge_litert.interpreter import Interpreter
child = subprocess.run([sys.executable, "-c", "import numpy; print(numpy.__file__)"],
                       capture_output=True, text=True)
with open("/proc/self/maps") as maps:
    mapped = sorted({line.split(None, 5)[5].strip() for line in maps if ".so" in line})
print(json.dumps({"path": sys.path, "executable": sys.executable, "child": child.stdout.strip(),
                  "mapped": mapped}))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("some where")
    with tarfile.open(native().path) as tar:
        assert all(m.isfile() or m.isdir() for m in tar.getmembers())
        tar.extractall(folder, filter="data")
    return folder


def started(argv: list[str], cwd: Path, **env: str) -> dict[str, object]:
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found | {"stderr": done.stderr}


def test_it_runs_on_nothing_but_itself(unpacked: Path, tmp_path: Path) -> None:
    """Whatever the caller's environment says of Python and of libraries."""
    found = started(
        ["/bin/sh", str(unpacked / "py"), "-c", LOOK],
        tmp_path,
        LD_LIBRARY_PATH="/nonexistent",
        LD_PRELOAD="",
        PYTHONPATH="/nonexistent",
        PYTHONHOME="/nonexistent",
    )
    inside = f"{unpacked}/"
    assert found["executable"] == f"{inside}py"
    paths, mapped = found["path"], found["mapped"]
    assert isinstance(paths, list)
    assert isinstance(mapped, list)
    assert [p for p in paths if p and not p.startswith(inside)] == []
    assert found["stderr"] == ""
    assert [p for p in mapped if not p.startswith(inside)] == []
    assert str(found["child"]).startswith(inside)


@pytest.mark.parametrize("argv", [["sh", "py"], ["./py"], ["sh", "./py"]])
def test_it_is_found_by_any_name(unpacked: Path, argv: list[str]) -> None:
    code = "import json, sys; print(json.dumps({'argv': sys.argv, 'home': sys.prefix}))"
    found = started([*argv, "-c", code, "a b", ""], unpacked, PATH=os.defpath)
    assert found["argv"] == ["-c", "a b", ""]
    assert Path(str(found["home"])).resolve() == unpacked.resolve()


def test_every_part_has_a_licence_on_board(unpacked: Path) -> None:
    parts = json.loads((unpacked / "licences" / "licences.json").read_text())
    assert {"libc6", "python3.11-minimal", "numpy", "ai-edge-litert"} <= {p["name"] for p in parts}
    for part in parts:
        assert part["files"], part["name"]
        assert all((unpacked / name).stat().st_size for name in part["files"]), part["name"]
