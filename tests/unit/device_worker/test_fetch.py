"""Small result files in one answer; large ones are left to the transport."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from device_worker import plain, wire
from tests.unit.device_worker.harness import WorkerProcess, gemm

ORT = wire.RuntimeSpec("onnxruntime")
MANY = 20_000
"""Samples whose hashes alone (32 bytes each) are more than one answer takes."""


def test_small_files_come_whole_and_in_one_answer(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        job = worker.job(gemm(tmp_path / "m.onnx"), {"x": np.ones((3, 4), np.float32)}, ORT)
        result = worker.run(job)
        found = worker.ask("fetch", attempt=job.attempt)["files"]
    paths = [o.path for o in result.outputs] + [f.path for f in result.files.values()]
    assert sorted(found) == sorted(paths)
    assert all(base64.b64decode(found[path]) == Path(path).read_bytes() for path in paths)


def test_what_does_not_fit_into_an_answer_is_left_out(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        x = np.ones((MANY, 4), np.float32)
        job = worker.job(gemm(tmp_path / "m.onnx"), {"x": x}, ORT)
        result = worker.run(job)
        answer = worker.ask("fetch", attempt=job.attempt)
    assert len(plain.encode(answer)) < plain.MAX_LINE // 2
    assert result.files["telemetry"].path in answer["files"]
    assert result.files["sample_hashes"].path not in answer["files"]


def test_an_attempt_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        assert worker.ask("fetch", attempt="none")["kind"] == "infra_error"
        assert worker.ask("fetch", attempt="../cache")["code"] == "E-ATTEMPT-ID"
        assert worker.ask("noop")["type"] == "done"
