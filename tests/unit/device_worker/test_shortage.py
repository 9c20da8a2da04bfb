"""What the operating system refuses a worker is the device's trouble, whoever stumbles over it.

Every limit is a real one, set when the job begins or by a control group around the process.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_worker import cgroups, shortage, wire
from device_worker.errors import WorkerError
from tests.unit.device_worker.harness import QUICKSTART, REPO, WorkerProcess, gemm

ONNX, TFLITE = (
    QUICKSTART / "models" / f"digits_cnn.{name}" for name in ("u8u8.onnx", "int8.tflite")
)
ORT, LITERT = wire.RuntimeSpec("onnxruntime", threads=4), wire.RuntimeSpec("litert", threads=4)
BOTH = [pytest.param(ONNX, ORT, id="onnxruntime"), pytest.param(TFLITE, LITERT, id="litert")]
AT_THE_JOB = """
import os, sys, resource
sys.path.insert(0, sys.argv[1])
from device_worker import measure
real = measure._check_job
def check(job):
    real(job)
    {limit}
measure._check_job = check
"""
"""Code that runs when a job begins: imports of the worker itself are done by then."""
SIZE = "int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()"


def starved(limit: str) -> str:
    return AT_THE_JOB.format(limit=limit)


def soft(kind: str, value: str) -> str:
    """Code that lowers one limit of the process."""
    return f"r = resource.{kind}; resource.setrlimit(r, ({value}, resource.getrlimit(r)[1]))"


def digits(model: Path) -> dict[str, Any]:
    """Two samples in the form that the model takes."""
    x = np.load(QUICKSTART / "digits_8x8.npz")["x"][:2]
    if model.suffix == ".onnx":
        return {"x": x.reshape(2, 1, 8, 8).astype(np.float32)}
    return {"x": (x.reshape(2, 8, 8, 1) - 128).astype(np.int8)}


def refused(worker: WorkerProcess, model: Path, spec: wire.RuntimeSpec) -> tuple[str, str, str]:
    with worker:
        return worker.refused(worker.job(model, digits(model), spec))


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("preload") / "refuse.so"
    source = REPO / "tests" / "data" / "starved" / "refuse.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


@pytest.mark.parametrize(("model", "spec"), BOTH)
def test_threads_that_the_library_refuses(
    tmp_path: Path, preload: str, model: Path, spec: wire.RuntimeSpec
) -> None:
    env = {"LD_PRELOAD": preload, "ASSAY_THREADS": "4", "OPENBLAS_NUM_THREADS": "1"}
    kind, code, what = refused(WorkerProcess(tmp_path, env=env), model, spec)
    assert (kind, code) == ("infra_error", "E-WORKER-SHORT"), what
    assert "2 of" in what, "two are the worker's own"


def test_a_runtime_that_hangs_for_want_of_a_thread_is_ended_and_named(
    tmp_path: Path, preload: str
) -> None:
    """The look ahead gets its four, ONNX Runtime one of three, and waits for the others."""
    prelude = starved("pass") + "measure.shortage.STUCK_S = 0.2\n"
    env = {"LD_PRELOAD": preload, "ASSAY_THREADS": "7", "OPENBLAS_NUM_THREADS": "1"}
    worker = WorkerProcess(tmp_path, "--heartbeat", "0.2", prelude=prelude, env=env)
    kind, code, what = refused(worker, ONNX, ORT)
    assert (kind, code) == ("infra_error", "E-WORKER-SHORT"), what
    assert "threads" in what


@pytest.fixture
def pids() -> Iterator[Path]:
    """A control group of its own whose limit may be set, of either version."""
    for top in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        group = top / f"assay-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / "pids.max").exists() and os.access(group / "pids.max", os.W_OK):
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip("no control group for processes can be made here")


@pytest.mark.parametrize("limit", [5, 7])
def test_processes_that_the_control_group_refuses(tmp_path: Path, pids: Path, limit: int) -> None:
    (pids / "pids.max").write_text(str(limit))
    enter = f'echo $$ > {pids}/cgroup.procs; OPENBLAS_NUM_THREADS=1 exec "$@"'
    kind, code, what = refused(WorkerProcess(tmp_path, argv=("sh", "-c", enter, "sh")), ONNX, ORT)
    assert (kind, code) == ("infra_error", "E-WORKER-SHORT"), what
    assert f"pids.max of {pids} is {limit}" in what


AS_ANOTHER = (
    "os.setresgid(47123, 47123, 0); os.setresuid(47123, 47123, 0); import ctypes; "
    "ctypes.CDLL(None).setfsuid(0); "
)
"""Nobody limits root's processes; this user still opens what root may open."""


@pytest.mark.parametrize(
    ("limit", "code", "said"),
    [
        pytest.param(soft("RLIMIT_AS", f"{SIZE} + (3 << 20)"), "E-WORKER-OOM", "ulimit -v", id="a"),
        pytest.param(
            soft("RLIMIT_AS", f"{SIZE} + (50 << 20)"), "E-WORKER-OOM", "ulimit -v", id="import"
        ),
        pytest.param(soft("RLIMIT_DATA", "1 << 20"), "E-WORKER-OOM", "ulimit -d", id="data"),
        pytest.param(
            "import numpy; " + soft("RLIMIT_NOFILE", "len(os.listdir('/proc/self/fd')) - 1"),
            "E-WORKER-SHORT",
            "descriptors",
            id="descriptors",
        ),
        pytest.param(soft("RLIMIT_FSIZE", "0"), "E-WORKER-SHORT", "ulimit -f", id="file size"),
        pytest.param(
            (AS_ANOTHER if os.getuid() == 0 else "") + soft("RLIMIT_NPROC", "1"),
            "E-WORKER-SHORT",
            "ulimit -u is 1",
            id="processes",
        ),
    ],
)
def test_limits_of_the_process(tmp_path: Path, limit: str, code: str, said: str) -> None:
    worker = WorkerProcess(tmp_path, "--heartbeat", "60", prelude=starved(limit))
    kind, found, what = refused(worker, ONNX, ORT)
    assert (kind, found) == ("infra_error", code), what
    assert said in what


@pytest.mark.parametrize("kilobytes", [200_000, 272_000])
def test_address_space_that_is_short_from_the_start(tmp_path: Path, kilobytes: int) -> None:
    """Neither NumPy nor the runtime is missing or broken: there was no room to map them."""
    argv = ("sh", "-c", f'ulimit -v {kilobytes}; OPENBLAS_NUM_THREADS=1 exec "$@"', "sh")
    with WorkerProcess(tmp_path, argv=argv) as worker:
        kind, code, what = worker.refused(job_of_ones(worker))
    assert (kind, code) == ("infra_error", "E-WORKER-OOM"), what


def job_of_ones(worker: WorkerProcess) -> wire.Job:
    return worker.job(gemm(worker.root / "m.onnx"), {"x": np.ones((1, 4), np.float32)}, ORT)


def test_a_medium_that_fails(tmp_path: Path, preload: str) -> None:
    """The first writes pass; then the optimised plan cannot be saved, in whatever words."""
    prelude = starved("os.environ['ASSAY_WRITES'] = '20000'")
    worker = WorkerProcess(tmp_path, prelude=prelude, env={"LD_PRELOAD": preload})
    kind, code, what = refused(worker, ONNX, ORT)
    assert (kind, code) == ("infra_error", "E-WORKER-IO"), what
    assert "Input/output error" in what


def test_a_full_folder_of_temporary_files(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(full)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        worker = WorkerProcess(tmp_path / "root", env={"TMPDIR": str(full)})
        kind, code, what = refused(worker, ONNX, ORT)
    finally:
        subprocess.run(["umount", "-l", str(full)], check=True)
    assert (kind, code) == ("infra_error", "E-DISK-FULL"), what


def test_a_processor_that_is_not_granted(tmp_path: Path) -> None:
    """ONNX Runtime would go on without it, and measure something else than was asked for."""
    spec = replace(ORT, threads=2, session={"session.intra_op_thread_affinities": "4001"})
    kind, code, what = refused(WorkerProcess(tmp_path), ONNX, spec)
    assert (kind, code) == ("infra_error", "E-WORKER-SHORT"), what
    assert "processor 4000" in what


def test_a_worker_that_cannot_even_start_its_threads_says_so(tmp_path: Path, preload: str) -> None:
    env = {"LD_PRELOAD": preload, "ASSAY_THREADS": "1"}
    with WorkerProcess(tmp_path, env=env) as worker:
        found = worker.message()
        found = worker.message() if found["type"] == "hello" else found
        assert (found["type"], found["code"]) == ("error", "E-WORKER-SHORT")
        worker.wait()
        assert "Traceback" not in worker.stderr()


def test_a_telemetry_without_threads_is_no_telemetry(tmp_path: Path, preload: str) -> None:
    """The sampler gets one, the reader of its files none: the job ends, nothing goes unwatched."""
    env = {"LD_PRELOAD": preload, "ASSAY_THREADS": "3", "OPENBLAS_NUM_THREADS": "1"}
    kind, code, what = refused(WorkerProcess(tmp_path, env=env), TFLITE, replace(LITERT, threads=1))
    assert (kind, code) == ("infra_error", "E-WORKER-SHORT"), what


@pytest.mark.parametrize(("model", "spec"), BOTH)
def test_a_model_that_is_refused_with_everything_at_hand_is_the_models_fault(
    tmp_path: Path, model: Path, spec: wire.RuntimeSpec
) -> None:
    """Also under a name that sounds like a shortage."""
    damaged = tmp_path / f"bad_alloc{model.suffix}"
    damaged.write_bytes(b"pthread_create failed: bad_alloc" * 64)
    with WorkerProcess(tmp_path / "root") as worker:
        kind, code, what = worker.refused(worker.job(damaged, digits(model), spec))
    assert (kind, code) == ("model_error", "E-MODEL-LOAD"), what


V1 = {
    "proc/self/cgroup": "8:pids:/farm/w\n4:memory:/w\n9:name=systemd:/\n0::/\n",
    "proc/self/mountinfo": (
        "30 20 0:26 / /cg/pids rw - cgroup cgroup rw,pids\n"
        "31 20 0:27 / /cg/memory rw - cgroup cgroup rw,memory\n"
    ),
    "cg/pids/farm/w/pids.events": "max 2\n",
    "cg/pids/farm/pids.events": "max 0\n",
    "cg/memory/w/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    "cg/memory/w/memory.failcnt": "812\n",
}
V2 = {
    "proc/self/cgroup": "0::/box/farm\n",
    # In a container, what is mounted is the container's own group.
    "proc/self/mountinfo": "29 20 0:25 /box /cg rw,nosuid shared:4 - cgroup2 cgroup rw\n",
    "cg/farm/pids.events": "max 0\n",
    "cg/farm/memory.events": "low 0\nhigh 0\nmax 900\noom 1\noom_kill 1\n",
    "cg/pids.events": "max 2\n",
    "cg/farm/pids.max": "max\n",
    "cg/pids.max": "12\n",
    "cg/pids.current": "12\n",
}


def laid_out(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("files", "moved", "refused"),
    [
        (V1, {}, None),
        (V1, {"cg/pids/farm/w/pids.events": "max 3\n"}, ("threads or processes", "cg/pids/farm/w")),
        (V1, {"cg/memory/w/memory.failcnt": "990\n"}, None),
        (V1, {"cg/memory/w/memory.oom_control": "oom_kill 2\n"}, ("memory", "cg/memory/w")),
        (V2, {"cg/pids.events": "max 3\n"}, ("threads or processes", "cg")),
        (V2, {"cg/farm/memory.events": "max 990\noom 1\noom_kill 1\n"}, None),
        (V2, {"cg/farm/memory.events": "oom 1\noom_kill 2\n"}, ("memory", "cg/farm")),
        (V2, {"proc/self/cgroup": "\n"}, None),
    ],
)
def test_what_control_groups_count_as_refused(
    tmp_path: Path,
    files: dict[str, str],
    moved: dict[str, str],
    refused: tuple[str, str] | None,
) -> None:
    root = laid_out(tmp_path, files)
    before = cgroups.refusals(root)
    assert sum(before.values()) == {id(V1): 3, id(V2): 4}[id(files)]
    laid_out(tmp_path, moved)
    found = cgroups.since(before, cgroups.refusals(root))
    expected = refused and (refused[0], str(tmp_path / refused[1]))
    assert (found and tuple(found)) == expected


def test_the_limit_that_is_reached_is_named(tmp_path: Path) -> None:
    assert cgroups.full(laid_out(tmp_path, V2)) == f"pids.max of {tmp_path / 'cg'} is 12"
    assert cgroups.full(laid_out(tmp_path, {"cg/pids.current": "11\n"})) is None


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "E-DISK-FULL"),
        (errno.EDQUOT, "E-DISK-FULL"),
        (errno.ENOMEM, "E-WORKER-OOM"),
        (errno.EAGAIN, "E-WORKER-SHORT"),
        (errno.EMFILE, "E-WORKER-SHORT"),
        (errno.ENFILE, "E-WORKER-SHORT"),
        (errno.EFBIG, "E-WORKER-SHORT"),
        (errno.EIO, "E-WORKER-IO"),
        (errno.EROFS, "E-WORKER-IO"),
    ],
)
def test_errno_says_what_ran_out(number: int, code: str) -> None:
    for error in (shortage.unexpected(OSError(number, "?")), shortage.of(OSError(number, "?"))):
        assert error is not None
        assert (error.kind, error.code) == ("infra_error", code)


def test_words_of_a_shortage_alone_are_none() -> None:
    assert shortage.of(RuntimeError("pthread_create failed, error code: 11")) is None
    assert shortage.now(shortage.Need()) is None
    found = WorkerError("model_error", "E-MODEL-LOAD", "Resource temporarily unavailable")
    assert shortage.Watch(shortage.Need()).follow(found) is found
