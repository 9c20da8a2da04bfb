"""Result files reach the coordinator whole, whichever way they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_worker import wire
from device_worker.cache import sha256_file
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.devices.worker import Worker
from orchestrator.errors import InfraError
from orchestrator.results.files import wanted
from orchestrator.transports import LocalSettings, open_transport
from tests.unit.device_worker.harness import gemm


@pytest.fixture
def session(tmp_path: Path) -> Iterator[DeviceSession]:
    transport = open_transport(LocalSettings(root=str(tmp_path / "device")), device="d")
    with DeviceSession(transport, device="d", owner="o", token=1, limits=Limits()) as opened:
        yield opened


def blob(path: Path) -> wire.Blob:
    return wire.Blob(sha256_file(str(path)), path.stat().st_size)


def job(tmp_path: Path, session: DeviceSession, samples: int) -> tuple[Worker, wire.Job]:
    model, inputs = gemm(tmp_path / "m.onnx"), tmp_path / "x.npy"
    np.save(inputs, np.ones((samples, 4), np.float32))
    worker = session.worker(sys.executable)
    session.ensure(worker, {blob(path).sha256: path for path in (model, inputs)})
    tensor = wire.InputTensor("x", blob(inputs), "float32", [samples, 4])
    runtime = wire.RuntimeSpec("onnxruntime")
    return worker, wire.Job("a", blob(model), "onnx", [tensor], runtime, samples)


@pytest.mark.parametrize("samples", [1, 20_000])
def test_every_file_has_the_hash_the_worker_named(
    tmp_path: Path, session: DeviceSession, samples: int
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    result = session.run(*job(tmp_path, session, samples), into)
    announced = {w.local: w.file.blob for w in wanted(result, samples)}
    assert {path.name: blob(path) for path in into.iterdir()} == announced
    assert len(np.load(into / "latency_ns")) == samples
    assert list((tmp_path / "device" / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "error"), [("AAAA", "E-TRANSFER-HASH"), ("?", "E-WORKER-GARBAGE")]
)
def test_a_changed_answer_is_refused(
    tmp_path: Path,
    session: DeviceSession,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    error: str,
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    honest = Worker.ask

    def spoil(self: Worker, op: str, **named: Any) -> dict[str, Any]:
        reply = honest(self, op, **named)
        if op == "fetch":
            reply["files"] = dict.fromkeys(reply["files"], content)
        return reply

    monkeypatch.setattr(Worker, "ask", spoil)
    with pytest.raises(InfraError, match=error):
        session.run(*job(tmp_path, session, 1), into)
