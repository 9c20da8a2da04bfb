"""Orders for a hub: ``y = x @ w`` on ONNX Runtime, on devices whose processes run here."""

from __future__ import annotations

import hashlib
import io
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_worker import wire
from orchestrator.devices.session import Limits
from orchestrator.fanout.hub_job import Order, Target
from orchestrator.results.finished import Finished
from orchestrator.transports.settings import FakeSettings, Fault, LocalSettings
from tests.unit.device_worker.harness import gemm

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Bench:
    """A model with ``columns`` outputs and the files of its orders, in ``folder``."""

    folder: Path
    columns: int = 3

    def order(
        self,
        device: str,
        *faults: Fault,
        samples: int = 5,
        token: int = 1,
        owner: str = "farm",
        python: str | None = sys.executable,
        model: bytes | None = None,
        limits: Limits = Limits(60.0, 30.0),  # noqa: B008  immutable
        paths: Path | None = None,
        **job: Any,
    ) -> Order:
        """``model``: other bytes than the model's; ``paths``: what blobs' paths are relative to."""
        root = str(self.root(device))
        transport = (
            FakeSettings(root=root, faults=list(faults)) if faults else LocalSettings(root=root)
        )
        x = self.folder / f"x{samples}.npy"
        np.save(x, self.inputs(samples))
        net = gemm(self.folder / "gemm.onnx", self.columns)
        if model is not None:
            net = self.folder / f"{hashlib.sha256(model).hexdigest()[:8]}.onnx"
            net.write_bytes(model)
        tensor = wire.InputTensor("x", _blob(x), "float32", [samples, 4])
        runtime = wire.RuntimeSpec("onnxruntime")
        number = next(_numbers)
        return Order(
            target=Target(device, "bench", transport, owner, token),
            job=wire.Job(
                f"attempt-{number}", _blob(net), "onnx", [tensor], runtime, samples, **job
            ),
            python=python,
            blobs={
                _blob(p).sha256: str(p if paths is None else p.relative_to(paths)) for p in (net, x)
            },
            limits=limits,
        )

    def inputs(self, samples: int) -> NDArray[np.float32]:
        return np.arange(samples * 4, dtype=np.float32).reshape(samples, 4) / np.float32(7)

    def root(self, device: str) -> Path:
        return self.folder / "devices" / device

    def check(self, finished: Finished, samples: int = 5) -> None:
        """The attempt is ok, and brought exactly what the model computes."""
        assert finished.failure is None, finished.failure
        weights = np.arange(4 * self.columns, dtype=np.float32).reshape(4, self.columns)
        got = np.load(io.BytesIO(finished.files["output-0"]))
        assert got.shape == (samples, self.columns)
        np.testing.assert_allclose(got, self.inputs(samples) @ weights, rtol=1e-6)
        assert finished.result is not None
        (output,) = finished.result["outputs"]
        assert hashlib.sha256(finished.files["output-0"]).hexdigest() == output["blob"]["sha256"]


def refused(finished: Finished) -> tuple[str, str, bool]:
    """(outcome, error ID, retryable) of a failed attempt, which brings nothing at all."""
    assert finished.failure is not None
    assert (finished.result, finished.files) == (None, {})
    assert "\n" not in finished.failure.text
    return finished.failure.outcome, finished.failure.id, finished.failure.retryable


def _blob(path: Path) -> wire.Blob:
    data = path.read_bytes()
    return wire.Blob(hashlib.sha256(data).hexdigest(), len(data))
