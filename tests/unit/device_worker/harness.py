"""Drives a real worker process over pipes, the way a coordinator does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from device_worker import plain, wire

REPO = Path(__file__).parents[3]
QUICKSTART = REPO / "matrices" / "quickstart"
BOOTSTRAP = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from device_worker.__main__ import main; sys.exit(main(sys.argv[2:]))"
)
Array = npt.NDArray[Any]


def bundle(folder: Path) -> Path:
    """The device_worker package as a zip, as it is pushed to devices."""
    path = folder / "worker.pyz"
    if path.exists():
        return path  # another worker may be importing from it
    with zipfile.ZipFile(path, "w") as archive:
        for source in sorted((REPO / "device_worker").rglob("*.py")):
            archive.write(source, source.relative_to(REPO))
    return path


def blob(path: Path) -> wire.Blob:
    data = path.read_bytes()
    return wire.Blob(hashlib.sha256(data).hexdigest(), len(data))


class WorkerProcess:
    """A worker session; ``argv`` goes before the interpreter, ``flags`` after ``session``."""

    def __init__(
        self,
        root: Path,
        *flags: str,
        python: str = sys.executable,
        argv: tuple[str, ...] = (),
        prelude: str = "",
        owner: str = "farm",
        token: int = 1,
        env: dict[str, str] | None = None,
    ) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.archive = bundle(root)
        self._stderr = (root / f"stderr.{time.monotonic_ns()}").open("w+b")
        self.process = subprocess.Popen(
            [
                *argv,
                *(python, "-c", prelude + BOOTSTRAP, str(self.archive), "session"),
                *("--root", str(root), "--owner", owner, "--token", str(token), *flags),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **(env or {})},
        )
        self._id = 0
        self.heartbeats: list[int] = []
        self.progress: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._stderr):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue  # unsent requests of a worker that ended

    def send(self, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(fields).encode() + b"\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """The next message; every line on stdout must be one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"worker ended: {self.stderr()}"
        return plain.decode(line)

    def message(self) -> dict[str, Any]:
        """The next message that is no heartbeat or progress (those are collected)."""
        while True:
            found = self.read()
            if found["type"] == "heartbeat":
                self.heartbeats.append(found["counter"])
            elif found["type"] == "progress":
                self.progress.append(found)
            else:
                return found

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        self._id += 1
        self.send(op=op, id=self._id, **fields)
        while True:
            reply = self.message()
            if reply["type"] != "hello":
                assert reply.get("id") in (self._id, None)
                return reply

    def push(self, path: Path) -> wire.Blob:
        """Adopt a copy of ``path``."""
        incoming = self.root / "incoming" / path.name
        self.ask("noop")  # the folders are made once the lease is taken
        shutil.copy(path, incoming)
        found = blob(path)
        reply = self.ask("adopt", sha256=found.sha256, path=str(incoming))
        assert reply["type"] == "adopted", reply
        return found

    def job(
        self,
        model: Path,
        inputs: dict[str, Array],
        spec: wire.RuntimeSpec,
        attempt: str = "attempt-1",
        **fields: Any,
    ) -> wire.Job:
        """Push everything a job needs and describe it."""
        tensors = []
        for name, array in inputs.items():
            path = self.root / f"input-{attempt}.npy"
            np.save(path, array)
            found = self.push(path)
            tensors.append(wire.InputTensor(name, found, str(array.dtype), list(array.shape)))
        samples = fields.pop("samples", len(next(iter(inputs.values()))))
        return wire.Job(
            attempt, self.push(model), model.suffix[1:], tensors, spec, samples, **fields
        )

    def run(self, job: wire.Job) -> wire.JobResult:
        reply = self.ask("run", job=wire.dump(job))
        assert reply["type"] == "result", reply
        return wire.load(wire.JobResult, reply["result"])

    def refused(self, job: wire.Job) -> tuple[str, str, str]:
        """(kind, code, what) of the error a job ends with."""
        reply = self.ask("run", job=wire.dump(job))
        assert reply["type"] == "error", reply
        return reply["kind"], reply["code"], reply["what"]

    def wait(self, timeout: float = 20.0) -> int:
        return self.process.wait(timeout)

    def stderr(self) -> str:
        self._stderr.flush()
        return Path(self._stderr.name).read_text(errors="replace")


def gemm(path: Path, columns: int = 3) -> Path:
    """A float model ``y = x @ w`` with x [N, 4], y [N, columns]."""
    weights = np.arange(4 * columns, dtype=np.float32).reshape(4, columns)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    return save(path, graph)


def two_by_two(path: Path) -> Path:
    """Two inputs, two outputs of different dtypes: total = a + b, swapped = -a (int8)."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["b"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["a", "wide"], ["total"]),
            helper.make_node("Neg", ["b"], ["negative"]),
        ],
        "two",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("b", TensorProto.INT8, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("total", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("negative", TensorProto.INT8, [1, 3]),
        ],
    )
    return save(path, graph)


def save(path: Path, graph: onnx.GraphProto) -> Path:
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path
