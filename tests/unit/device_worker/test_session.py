"""The session protocol, spoken to a real worker process that runs from a zip."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_worker import plain, wire
from tests.unit.device_worker.harness import (
    BOOTSTRAP,
    WorkerProcess,
    blob,
    bundle,
    gemm,
    two_by_two,
)

ORT = wire.RuntimeSpec("onnxruntime")
_SLOW = """
import time
from device_worker import runtimes
real = runtimes.ADAPTERS["onnxruntime"]
def slow(path, spec):
    runtime = real(path, spec)
    run = runtime.run
    def wait(inputs):
        time.sleep(0.05)
        return run(inputs)
    runtime.run = wait
    return runtime
runtimes.ADAPTERS["onnxruntime"] = slow
"""
SLOW = "import sys; sys.path.insert(0, sys.argv[1])\n" + _SLOW + "\n"


def ones(samples: int) -> dict[str, Any]:
    return {"x": np.ones((samples, 4), np.float32)}


def test_hello_comes_first_and_names_the_bundle(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        hello = worker.read()
        assert hello["type"] == "hello"
        assert hello["protocol"] == wire.PROTOCOL
        assert hello["pid"] == worker.process.pid
        assert hello["worker_sha256"] == blob(worker.archive).sha256
        assert abs(hello["clock_unix"] - time.time()) < 60
        assert worker.ask("ping", nonce="n1")["nonce"] == "n1"
        assert worker.ask("noop")["type"] == "done"
        assert worker.ask("bye")["type"] == "bye"
        assert worker.wait() == 0


def test_a_bundle_of_another_hash_is_refused(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, env={"ASSAY_WORKER_SHA256": "0" * 64}) as worker:
        assert worker.read()["code"] == "E-WORKER-HASH"
        assert worker.wait() == 70


def test_a_job_end_to_end_with_two_inputs_and_two_outputs(tmp_path: Path) -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.array([[1, 2, 3], [4, 5, 6]], np.int8)
    with WorkerProcess(tmp_path) as worker:
        model = two_by_two(tmp_path / "two.onnx")
        job = worker.job(model, {"b": b}, ORT)
        first = worker.job(model, {"a": a}, ORT, attempt="other").inputs[0]
        job = wire.Job(
            **{
                **{name: getattr(job, name) for name in job.__dataclass_fields__},
                "inputs": [*job.inputs, first],
            }
        )
        result = worker.run(job)
        total, negative = (np.load(item.path) for item in result.outputs)
        assert [item.name for item in result.outputs] == ["total", "negative"]
        assert np.array_equal(total, a + b)
        assert np.array_equal(negative, -b)
        assert result.input_sha256 == [tensor.blob.sha256 for tensor in job.inputs]
        assert worker.ask("forget", attempt=job.attempt)["type"] == "forgotten"
        assert list((tmp_path / "out").iterdir()) == []
        assert worker.ask("forget", attempt="../cache")["code"] == "E-ATTEMPT-ID"


def test_a_second_job_needs_no_pushed_byte(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        job = worker.job(gemm(tmp_path / "m.onnx"), ones(2), ORT)
        worker.run(job)
        wanted = [job.model.sha256, job.inputs[0].blob.sha256]
        worker.ask("bye")
    with WorkerProcess(tmp_path, token=2) as worker:
        assert worker.ask("have", sha256=wanted)["present"] == wanted
        worker.run(job)


def test_stray_output_never_reaches_the_channel(tmp_path: Path) -> None:
    """print() in Python, puts() in C and a child process, before and during a job."""
    prelude = SLOW + (
        "import ctypes, subprocess\n"
        "def noisy(path, spec, opener=runtimes.ADAPTERS['onnxruntime']):\n"
        "    print('PYTHON NOISE', flush=True)\n"
        "    libc = ctypes.CDLL(None); libc.puts(b'C NOISE'); libc.fflush(None)\n"
        "    subprocess.run(['echo', 'CHILD NOISE'])\n"
        "    assert sys.stdin.read() == ''\n"
        "    return opener(path, spec)\n"
        "runtimes.ADAPTERS['onnxruntime'] = noisy\n"
    )
    with WorkerProcess(tmp_path, prelude=prelude) as worker:
        worker.run(worker.job(gemm(tmp_path / "m.onnx"), ones(2), ORT))
        worker.ask("bye")
        assert worker.process.stdout is not None
        assert worker.process.stdout.read() == b""
        for noise in ("PYTHON NOISE", "C NOISE", "CHILD NOISE"):
            assert noise in worker.stderr()


def test_heartbeats_pings_and_progress_during_a_job(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, "--heartbeat", "0.1", prelude=SLOW) as worker:
        job = worker.job(gemm(tmp_path / "m.onnx"), ones(30), ORT)
        worker.send(op="run", id="r", job=wire.dump(job))
        worker.send(op="ping", id="p", nonce="in between")
        first = worker.message()
        assert (first["type"], first["nonce"]) == ("pong", "in between")
        assert worker.message()["type"] == "result"
        assert len(worker.heartbeats) > 5
        assert worker.heartbeats == sorted(set(worker.heartbeats))
        assert {row["id"] for row in worker.progress} == {"r"}
        assert worker.progress[0]["total"] == 30


@pytest.mark.parametrize("busy", [False, True])
def test_the_worker_ends_when_stdin_closes(tmp_path: Path, busy: bool) -> None:
    with WorkerProcess(tmp_path, prelude=SLOW) as worker:
        job = worker.job(gemm(tmp_path / "m.onnx"), ones(1000), ORT)
        if busy:
            worker.send(op="run", id=1, job=wire.dump(job))
            time.sleep(0.5)
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        begin = time.monotonic()
        assert worker.wait() == 69
        assert time.monotonic() - begin < 15
        assert "stdin was closed" in worker.stderr()


def test_the_worker_ends_after_silence_but_pings_keep_it(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, "--watchdog", "2") as worker:
        for _ in range(6):
            time.sleep(0.5)
            assert worker.ask("ping", nonce="x")["type"] == "pong"
        begin = time.monotonic()
        assert worker.wait() == 69
        assert 1.9 < time.monotonic() - begin < 15
        assert "nothing heard for 2 s" in worker.stderr()


def test_a_coordinator_that_stops_reading_is_noticed(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, "--heartbeat", "0.1") as worker:
        worker.ask("noop")
        assert worker.process.stdout is not None
        worker.process.stdout.close()
        assert worker.wait() == 69


def test_goodbye_releases_the_lease_and_a_kill_does_not(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, owner="a") as worker:
        worker.ask("noop")
        worker.process.send_signal(signal.SIGKILL)
        worker.wait()
    with WorkerProcess(tmp_path, "--observe", "1.5", owner="b") as worker:
        begin = time.monotonic()
        assert worker.ask("noop")["type"] == "done"
        assert time.monotonic() - begin > 1.3, "a dead farm's lease was not observed"
        worker.ask("bye")
    with WorkerProcess(tmp_path, "--observe", "60", owner="c") as worker:
        begin = time.monotonic()
        assert worker.ask("noop")["type"] == "done"
        assert time.monotonic() - begin < 30, "a released lease needs no observing"


def test_a_living_farm_keeps_the_device(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, "--heartbeat", "0.2", owner="alpha") as holder:
        holder.ask("noop")
        with WorkerProcess(tmp_path, owner="beta", token=9) as other:
            error = other.ask("noop")
            assert (error["kind"], error["code"]) == ("infra_error", "E-LEASE-HELD")
            assert "alpha" in error["what"]
            assert other.wait() == 70
        assert holder.ask("noop")["type"] == "done"


def test_a_stale_token_is_refused(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, token=5) as worker:
        worker.ask("bye")
    with WorkerProcess(tmp_path, token=4) as worker:
        error = worker.ask("noop")
        assert (error["kind"], error["code"]) == ("stale", "E-LEASE-STALE")
        assert worker.wait() == 75


def test_a_newer_grant_fences_off_a_running_job_which_emits_no_result(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, "--heartbeat", "0.2", prelude=SLOW, token=1) as old:
        job = old.job(gemm(tmp_path / "m.onnx"), ones(1000), ORT)
        old.send(op="run", id="r", job=wire.dump(job))
        time.sleep(0.5)
        with WorkerProcess(tmp_path, token=2) as new:
            assert new.ask("noop")["type"] == "done"
            error = old.message()
            assert (error["kind"], error["code"]) == ("stale", "E-LEASE-STALE")
            assert old.wait() == 75
            assert old.process.stdout is not None
            assert old.process.stdout.read() == b""
            assert new.ask("noop")["type"] == "done"


def test_a_result_computed_under_a_lost_lease_is_withheld(tmp_path: Path) -> None:
    """The heartbeat is too slow to notice: the check before the result has to."""
    with WorkerProcess(tmp_path, "--heartbeat", "600", prelude=SLOW, token=1) as old:
        job = old.job(gemm(tmp_path / "m.onnx"), ones(60), ORT)
        old.send(op="run", id="r", job=wire.dump(job))
        time.sleep(0.7)
        with WorkerProcess(tmp_path, token=2) as new:
            new.ask("noop")
            error = old.message()
            assert (error["id"], error["code"]) == ("r", "E-LEASE-STALE")
            assert old.wait() == 75


def test_two_environments_share_one_lease(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path, "--heartbeat", "0.1") as one, WorkerProcess(tmp_path) as two:
        job = one.job(gemm(tmp_path / "m.onnx"), ones(2), ORT)
        two.ask("noop")
        wanted = [job.model.sha256]
        assert two.ask("have", sha256=wanted)["present"] == wanted
        one.run(job)
        two.ask("bye")
        time.sleep(0.3)
        assert one.ask("noop")["type"] == "done"


def test_a_fresh_lease_clears_what_a_dead_session_left(tmp_path: Path) -> None:
    for name in ("out/attempt-9", "incoming"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "left").write_text("old")
    with WorkerProcess(tmp_path) as worker:
        worker.ask("noop")
        assert list((tmp_path / "out").iterdir()) == []
        assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("line", [b"garbage", b"[1]", b"\xff\xfe", b"x" * (plain.MAX_LINE + 9)])
def test_garbage_from_the_coordinator_ends_the_session(tmp_path: Path, line: bytes) -> None:
    with WorkerProcess(tmp_path) as worker:
        worker.ask("noop")
        assert worker.process.stdin is not None
        worker.process.stdin.write(line + b"\n")
        worker.process.stdin.flush()
        assert worker.message()["code"] == "E-WIRE"
        assert worker.wait() == 70


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "no-such"},
        {"op": "run"},
        {"op": "run", "job": {"attempt": 1}},
        {"op": "have", "sha256": "x"},
        {"op": "have", "sha256": [1]},
        {"op": "adopt", "sha256": "0" * 64},
        {"op": "forget"},
        {},
    ],
)
def test_a_bad_request_is_answered_and_survived(tmp_path: Path, request_: dict[str, Any]) -> None:
    with WorkerProcess(tmp_path) as worker:
        worker.send(id=77, **request_)
        worker.read()
        error = worker.message()
        assert (error["type"], error["id"], error["code"]) == ("error", 77, "E-WIRE")
        assert worker.ask("noop")["type"] == "done"


def test_running_out_of_memory_is_not_the_models_fault(tmp_path: Path) -> None:
    prelude = SLOW + (
        "def starve(path, spec): raise MemoryError\nruntimes.ADAPTERS['onnxruntime'] = starve\n"
    )
    with WorkerProcess(tmp_path, prelude=prelude) as worker:
        kind, code, _ = worker.refused(worker.job(gemm(tmp_path / "m.onnx"), ones(1), ORT))
        assert (kind, code) == ("infra_error", "E-WORKER-OOM")


def test_a_bug_is_reported_and_survived(tmp_path: Path) -> None:
    prelude = SLOW + (
        "def bug(path, spec): raise ZeroDivisionError('oh')\n"
        "runtimes.ADAPTERS['onnxruntime'] = bug\n"
    )
    with WorkerProcess(tmp_path, prelude=prelude) as worker:
        kind, code, what = worker.refused(worker.job(gemm(tmp_path / "m.onnx"), ones(1), ORT))
        assert (kind, code) == ("infra_error", "E-WORKER-BUG")
        assert "ZeroDivisionError: oh" in what
        assert worker.ask("noop")["type"] == "done"


def test_missing_numpy_is_said_plainly(tmp_path: Path) -> None:
    prelude = "import sys; sys.modules['numpy'] = None\n"
    with WorkerProcess(tmp_path, prelude=prelude) as worker:
        model, tensor = wire.Blob("0" * 64, 1), wire.Blob("1" * 64, 1)
        given = [wire.InputTensor("x", tensor, "float32", [1, 4])]
        job = wire.Job("a", model, "onnx", given, ORT, 1)
        kind, code, what = worker.refused(job)
        assert (kind, code) == ("infra_error", "E-NUMPY-MISSING")
        assert "NumPy cannot be imported" in what
        assert "Traceback" not in worker.stderr()


def test_files_that_were_never_pushed_are_named(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        job = worker.job(gemm(tmp_path / "m.onnx"), ones(1), ORT)
        Path(tmp_path / "cache" / job.model.sha256[:2] / job.model.sha256).unlink()
        assert worker.refused(job)[:2] == ("infra_error", "E-CACHE-MISS")


def test_the_telemetry_switch_is_set_in_the_process_itself(tmp_path: Path) -> None:
    """ONNX Runtime asks getenv() of the C library, and must see it whatever the parent says."""
    code = (
        "import sys, ctypes; sys.path.insert(0, sys.argv[1])\n"
        "from device_worker.__main__ import main\n"
        "main(['selftest'])\n"
        "get = ctypes.CDLL(None).getenv; get.restype = ctypes.c_char_p\n"
        "print('C SEES', get(b'ORT_DISABLE_TELEMETRY'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle(tmp_path))],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "C SEES b'1'" in done.stdout
    with WorkerProcess(tmp_path, env={"ORT_DISABLE_TELEMETRY": "0"}) as worker:
        assert worker.ask("facts")["environment"]["ort_disable_telemetry"] == "1"
        result = worker.run(worker.job(gemm(tmp_path / "m.onnx"), ones(1), ORT))
        assert result.environment["ort_disable_telemetry"] == "1"


def test_an_interrupt_of_the_terminal_is_left_to_the_coordinator(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        worker.ask("noop")
        worker.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert worker.ask("noop")["type"] == "done"


def test_an_unwritable_root_is_an_error_message(tmp_path: Path) -> None:
    archive = bundle(tmp_path)
    (tmp_path / "file").write_text("")
    argv = ["session", "--root", str(tmp_path / "file" / "x"), "--owner", "a", "--token", "1"]
    done = subprocess.run(
        [sys.executable, "-c", BOOTSTRAP, str(archive), *argv], input=b"", capture_output=True
    )
    assert b"E-WORKER-IO" in done.stdout.splitlines()[-1]
    assert done.returncode == 70
    assert b"Traceback" not in done.stderr
