"""A farm of one device for benchmarks: a real sshd on loopback, a store, a run of equal cells."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from orchestrator.coordinator.events import NullProgress, Progress
from orchestrator.coordinator.loop import Stop, work_off
from orchestrator.fanout.executor import Executor
from orchestrator.run import enqueue, plan
from orchestrator.runs.snapshot import load_run
from orchestrator.staging.stage import here
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from orchestrator.transports.settings import SshSettings
from tests.benchmarks.kit import SkippedError
from tests.support import sshd

DEVICE = "loopback"


@contextlib.contextmanager
def server(folder: Path) -> Iterator[sshd.Sshd]:
    if sshd.MISSING is not None:
        raise SkippedError(sshd.MISSING)
    with sshd.running(folder) as running:
        yield running


def tiny_model(path: Path) -> Path:
    """One Relu on four floats: a cell on it costs what a cell costs, and no inference."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node("Relu", ["x"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    model = helper.make_model(
        helper.make_graph([node], "tiny", [x], [y]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 10
    onnx.save(model, path)
    return path


def tiny_matrix(folder: Path, ssh: SshSettings, cells: int) -> Path:
    """``cells`` cells of one sample each on one device; they differ in their name only."""
    np.savez(folder / "one.npz", x=np.ones((1, 4), np.float32))
    tiny_model(folder / "tiny.onnx")
    runtimes = [{"name": f"r{n}", "runtime": "onnxruntime", "threads": 1} for n in range(cells)]
    model = {
        "name": "tiny",
        "task": {"type": "regression", "tolerance": 1.0},
        "inputs": ["one"],
        "files": [{"name": "f", "path": "tiny.onnx"}],
    }
    inputs = {"name": "one", "type": "npz", "path": "one.npz"}
    return matrix(folder, ssh, models=[model], inputs=[inputs], runtimes=runtimes)


def matrix(folder: Path, ssh: SshSettings, **axes: Any) -> Path:
    """A matrix file in ``folder`` for the one device behind ``ssh``."""
    device = {
        "name": DEVICE,
        "class": DEVICE,
        "transport": ssh.model_dump(exclude_none=True),
        "python": {"default": sys.executable},
    }
    inventory = {"version": 1, "devices": [device]}
    (folder / "inventory.yaml").write_text(yaml.safe_dump(inventory))
    content = {
        "version": 1,
        "name": "bench",
        "inventory": "inventory.yaml",
        "devices": [{"name": DEVICE}],
        "conditions": ["clean"],
        **axes,
    }
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def submit(store: Store, path: Path) -> str:
    return enqueue(store, plan(path, []), here)


def work(store: Store, run: str, fan: Executor, progress: Progress | None = None) -> None:
    """The coordinator's own loop. Raises RuntimeError unless every attempt ended ok."""
    frozen = load_run(store.frozen(run))
    work_off(store, fan, run, frozen, progress or NullProgress(), Stop(), this_process())
    outcomes: Mapping[Any, int] = store.run(run).outcomes
    if set(outcomes) != {"ok"}:
        errors = [a.error for a in store.attempts(run) if a.error]
        raise RuntimeError(f"cells ended {dict(outcomes)}: {errors[:1]}")


@contextlib.contextmanager
def executor(kind: str, spool: Path) -> Iterator[Executor]:
    """``kind``: ray or inprocess."""
    fan: Executor
    if kind == "ray":
        from orchestrator.fanout.cluster import Cluster

        fan = Cluster([DEVICE], spool)
    else:
        from orchestrator.fanout.inprocess import InProcess

        fan = InProcess(spool)
    try:
        yield fan
    finally:
        fan.close()
        shutil.rmtree(spool, ignore_errors=True)
