"""A unit in this process: the worker's own code over a real runtime, sound or with a fault.

The worker finds its runtime by `device_worker.runtimes.ADAPTERS`; while `installed` those of units
with a fault go through it. Nothing else of the worker knows, so what it measures of itself
(repeats, order, fallbacks, hashes of inputs) is its own doing.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from device_worker import wire
from device_worker.batch import run_batch
from device_worker.cache import Cache
from device_worker.measure import run_job
from device_worker.runtimes import ADAPTERS, FORMATS, Interface, Opener, Runtime
from device_worker.wire import Backend, Blob, RuntimeSpec
from orchestrator.coordinator.device_pair import archive, tried
from orchestrator.devices import batch
from orchestrator.diagnosis.pair import Trial, Tried
from orchestrator.variance.lattice import Array

_number = itertools.count()
_faults: dict[str, Fault] = {}
"""Root of a unit -> what is wrong with it."""
_lock = threading.Lock()
"""The worker is one thread: it takes over stderr while it loads a model."""


class Fault:
    """Nothing is wrong; kinds of faults override what they spoil."""

    def memory(self, model: bytes) -> bytes:
        """The file as the unit's memory holds it."""
        return model

    def opened(self, path: str, spec: RuntimeSpec, opener: Opener) -> Runtime:
        return opener(path, spec)

    def ran(self, given: Sequence[Array], outputs: list[Array]) -> list[Array]:
        """One inference: what comes out of the runtime -> what the worker gets."""
        return outputs

    def backend(self, told: Backend) -> Backend:
        return told

    def collected(self, outputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """What the worker wrote, [samples, ...] each -> what arrives."""
        return outputs


class _Planted:
    def __init__(self, inner: Runtime, fault: Fault) -> None:
        self._inner, self._fault = inner, fault
        self.load_ns, self.notes = inner.load_ns, inner.notes

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return self._fault.ran(inputs, [np.array(x) for x in self._inner.run(inputs)])

    def reset(self) -> None:
        self._inner.reset()

    def describe(self) -> Interface:
        return self._inner.describe()

    def backend(self) -> Backend:
        return self._fault.backend(self._inner.backend())

    def version(self) -> dict[str, Any]:
        return self._inner.version()

    def graph(self) -> bytes | None:
        return self._inner.graph() if self.backend().operators else None

    def close(self) -> None:
        self._inner.close()


@contextmanager
def installed() -> Iterator[None]:
    """While it lasts, models that lie in the folder of a unit are opened as its fault has it."""
    kept = dict(ADAPTERS)
    ADAPTERS.update({name: _dispatch(opener) for name, opener in kept.items()})
    try:
        yield
    finally:
        ADAPTERS.update(kept)
        _faults.clear()


def _dispatch(opener: Opener) -> Opener:
    def opened(path: str, spec: RuntimeSpec) -> Runtime:
        fault = next((f for root, f in _faults.items() if path.startswith(root + os.sep)), None)
        if fault is None:
            return opener(path, spec)
        held = f"{path}.held"
        Path(held).write_bytes(fault.memory(Path(path).read_bytes()))
        return _Planted(fault.opened(held, spec, opener), fault)

    return opened


@dataclass(frozen=True, eq=False)
class Told:
    """One model on [n, ...] samples: outputs [n, ...] each, and what the worker said of itself."""

    outputs: tuple[Array, ...]
    backend: Backend
    environment: dict[str, Any]
    inputs: tuple[str, ...]


class Unit:
    """Runs models as a worker would. ``spec``: how; ``name``: for messages."""

    def __init__(self, folder: Path, spec: RuntimeSpec, fault: Fault | None = None) -> None:
        self.name, self.spec, self.fault = "unit", spec, fault or Fault()
        self._root = os.path.realpath(folder / f"unit-{next(_number)}")
        self._cache = Cache(self._root, 1 << 30)
        _faults[self._root] = self.fault

    def forget(self) -> None:
        _faults.pop(self._root, None)
        shutil.rmtree(self._root, ignore_errors=True)

    def run(self, trials: Sequence[Trial], *, optimise: bool = True) -> list[Tried]:
        answers = self._batch(trials, replace(self.spec, optimise=optimise))
        found = [tried(answer, self.name) for answer in answers.trials]
        return [replace(x, outputs=self.fault.collected(x.outputs)) for x in found]

    def answer(self, model: bytes, x: Array) -> Told:
        """``x`` [n, 1, ...] as the model takes it."""
        answers = self._batch([Trial("0", model, (x,))], self.spec)
        told = answers.trials[0]
        assert told.tried.error is None, told.tried.error
        assert told.tried.backend is not None
        outputs = self.fault.collected(told.outputs)
        environment = dict(answers.environment)
        return Told(outputs, told.tried.backend, environment, tuple(told.tried.input_sha256))

    def passes(
        self, model: bytes, x: Array, *, repeat: int = 1, order: int | None = None
    ) -> tuple[dict[str, Any], tuple[Array, ...]]:
        """A job of the worker: its result as JSON data, and the outputs [n, ...]."""
        form = FORMATS[self.spec.runtime]
        rows = np.ascontiguousarray(x[:, 0])
        tensor = wire.InputTensor("x", self._put(_npy(rows)), str(rows.dtype), list(rows.shape))
        job = wire.Job(
            f"job-{next(_number)}",
            self._put(model),
            form,
            [tensor],
            self.spec,
            samples=len(rows),
            repeat=repeat,
            warmup=0,
            telemetry_hz=0.1,
            order=order,
        )
        with _lock:
            result = run_job(job, self._cache, self._root, lambda _: None)
        outputs = tuple(np.load(tensor.path) for tensor in result.outputs)
        return wire.dump(result), self.fault.collected(outputs)

    def _batch(self, trials: Sequence[Trial], spec: RuntimeSpec) -> batch.Answers:
        packed = archive(trials)
        name = f"batch-{next(_number)}"
        with _lock:
            asked = wire.Batch(name, self._put(packed.data), FORMATS[spec.runtime], spec)
            result = run_batch(asked, self._cache, self._root, lambda _: None)
        found = batch.read(Path(result.answers.path), result)
        shutil.rmtree(Path(result.answers.path).parent)
        return found

    def _put(self, data: bytes) -> Blob:
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        path = Path(self._cache.path(blob.sha256))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return blob


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
