"""The worker's ``probe``: a delegate, loaded without a model, says what it is or what ails it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_worker import wire
from tests.support import edgetpu
from tests.unit.device_worker.harness import WorkerProcess


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with WorkerProcess(tmp_path_factory.mktemp("worker")) as process:
        yield process


def probe(worker: WorkerProcess, delegate: wire.Delegate, runtime: str = "litert") -> Any:
    return worker.ask("probe", runtime=runtime, delegate=wire.dump(delegate))


def test_a_delegate_that_loads_says_what_it_is(worker: WorkerProcess) -> None:
    library = edgetpu.library()
    sha256 = hashlib.sha256(library.read_bytes()).hexdigest()
    for _ in range(2):  # the first let go of it again
        reply = probe(worker, wire.Delegate("edgetpu", str(library), sha256=sha256))
        assert reply["type"] == "probed", reply
        told = reply["delegate"]
        assert (told["sha256"], told["standin"]) == (sha256, "standin-edgetpu")


def test_a_delegate_that_does_not_load_says_why(worker: WorkerProcess, tmp_path: Path) -> None:
    library = str(edgetpu.library())
    text = tmp_path / "text.so"
    text.write_text("no library")
    cases = {
        "E-DELEGATE-LIBRARY": (
            wire.Delegate("d", "libno-such.so.1"),
            wire.Delegate("d", str(text)),
        ),
        "E-DELEGATE-HASH": (wire.Delegate("d", library, sha256="0" * 64),),
        "E-DELEGATE-DEVICE": (wire.Delegate("d", library, {"device": "usb:9"}),),
    }
    for code, given in cases.items():
        for delegate in given:
            assert probe(worker, delegate).get("code") == code, delegate
    other = probe(worker, wire.Delegate("d", library), "onnxruntime")
    assert (other["kind"], other["code"]) == ("not_available", "E-RUNTIME-UNKNOWN")
    assert worker.ask("probe", runtime="litert", delegate=1)["code"] == "E-WIRE"
    assert worker.ask("noop")["type"] == "done"


def test_without_numpy_that_is_what_is_said(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['numpy'] = None;"
    with WorkerProcess(tmp_path, python=sys.executable, prelude=hidden) as process:
        assert probe(process, wire.Delegate("d", "x")).get("code") == "E-NUMPY-MISSING"
