"""The stand-ins' own parts; tests/contract/test_delegates.py shows that runtimes load them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.standins.build import LIBRARY, BuildError, build, folder
from infra.standins.compile import compile_model
from orchestrator.models.inspect import check_compiled, inspect

REPO = Path(__file__).parents[2]
SOURCE = REPO / "matrices/quickstart/models/digits_cnn.int8.tflite"
SHIPPED = REPO / "matrices/standins/digits_cnn.int8_edgetpu.tflite"


def test_the_shipped_compiled_file_is_what_its_source_gives() -> None:
    assert SHIPPED.read_bytes() == compile_model(SOURCE.read_bytes())
    compiled = inspect(SHIPPED)
    check_compiled(compiled, inspect(SOURCE))
    assert (compiled.compiled, dict(compiled.operators)) == (True, {"edgetpu-custom-op": 1})


def test_the_inventory_looks_where_the_library_is_built() -> None:
    devices = yaml.safe_load((REPO / "matrices/inventories/lab.yaml").read_text())["devices"]
    device = next(d for d in devices if d["name"] == "standin-coral")
    library = Path(device["delegates"]["edgetpu"]["library"]).expanduser()
    assert library == folder() / LIBRARY


def test_it_is_built_once(tmp_path: Path) -> None:
    first = build(tmp_path)
    made = first.stat().st_mtime_ns
    assert build(tmp_path) == first
    assert first.stat().st_mtime_ns == made
    first.with_suffix(".source").write_text("another source")
    build(tmp_path)
    assert first.stat().st_mtime_ns > made
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "libedgetpu-standin.so",
        "libedgetpu-standin.source",
    ]


def test_without_a_compiler_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="install gcc"):
        build(tmp_path / "none", compiler="no-such-compiler")
    with pytest.raises(BuildError, match=r"does not compile edgetpu\.c"):
        build(tmp_path / "bad", compiler="false")
    assert list((tmp_path / "bad").iterdir()) == []


def test_the_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "infra.standins", *arguments]
        return subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False)

    done = run("build", str(tmp_path))
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / LIBRARY}\n")
    assert run("compile", str(SOURCE), str(tmp_path / "out.tflite")).returncode == 0
    assert (tmp_path / "out.tflite").read_bytes() == SHIPPED.read_bytes()
    for wrong in ((), ("build", "a", "b"), ("compile", "a")):
        assert run(*wrong).returncode == 2
    missing = run("compile", "none.tflite", str(tmp_path / "x"))
    assert missing.returncode == 2
    assert missing.stderr.startswith("standins: ")
    assert "Traceback" not in missing.stderr
