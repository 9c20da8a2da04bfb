"""Many small models in one go: probes of a runtime's arithmetic, pieces of a model that was cut.

One archive comes in and one goes out, for a round trip each would cost more than the inferences.

The archive that comes in is a zip with ``trials.json``::

    {"trials": [{"name", "model", "inputs": [name, ...], "graph"}], "made": {name: recipe}}

``model`` is a member. An input is a .npy member or a name in ``made`` (see `made`); it has shape
[runs, *shape of the tensor], and each run feeds one entry as it is. ``graph``: bring what the
optimiser makes of the model. The archive that goes out holds ``tried.json``, a list of `Tried` as
JSON in the order of the trials, ``<i>/output-<j>.npy`` of shape [runs, *shape of the tensor], and
``<i>/graph.onnx``. A trial that fails says why and keeps nobody else from being tried.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
import zipfile
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from device_worker import environment, shortage, wire
from device_worker.arrays import Array
from device_worker.attempts import folder
from device_worker.cache import Cache
from device_worker.errors import WorkerError, storage
from device_worker.feed import aligned
from device_worker.measure import Progress
from device_worker.outputs import write_bytes
from device_worker.runtimes import Runtime, open_model

TRIALS, TRIED = "trials.json", "tried.json"
_LARGEST = 1 << 30
"""Bytes of one member, unpacked: an archive must not fill the device's memory."""
_PROGRESS_S = 1.0


@dataclass(frozen=True)
class Trial:
    name: str
    model: str
    inputs: List[str]
    graph: bool = False


@dataclass(frozen=True)
class Recipe:
    """An input made on the device.

    ``random``: integers ``low``..``high`` out of NumPy's legacy generator, whose stream is frozen
    (NEP 19). ``ramp``: low, low + 1, ... high, low, ... Both are then cast to ``dtype``, and a
    float is multiplied by ``scale``, a power of two.
    """

    kind: str
    low: int
    high: int
    dtype: str
    shape: List[int]
    seed: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class Answer:
    """One output tensor: ``sha256`` of its bytes, all runs one after the other."""

    name: str
    dtype: str
    shape: List[int]
    sha256: str
    scale: Optional[float] = None
    zero_point: Optional[int] = None


@dataclass(frozen=True)
class Tried:
    """``error``: {kind, code, what} where there is no answer. ``input_sha256``: of the bytes."""

    name: str
    error: Optional[Dict[str, str]] = None
    input_sha256: List[str] = field(default_factory=list)
    backend: Optional[wire.Backend] = None
    outputs: List[Answer] = field(default_factory=list)


def made(recipe: Recipe) -> Array:
    """The array of a recipe. Raises WireError for one that cannot be followed."""
    count = int(np.prod(recipe.shape, dtype=np.int64))
    if recipe.high < recipe.low or not 0 < count <= _LARGEST or min(recipe.shape) < 0:
        raise wire.WireError("recipe: low, high or shape out of range")
    span = recipe.high - recipe.low + 1
    if recipe.kind == "random":
        values = np.random.RandomState(recipe.seed).randint(0, span, size=count, dtype=np.int64)
    elif recipe.kind == "ramp":
        values = np.arange(count, dtype=np.int64) % span
    else:
        raise wire.WireError("recipe: unknown kind %r" % recipe.kind[:40])
    try:
        array = (values + recipe.low).astype(np.dtype(recipe.dtype)).reshape(recipe.shape)
    except TypeError as error:
        raise wire.WireError("recipe: %s" % error) from error
    if array.dtype.kind == "f":
        array = array * array.dtype.type(recipe.scale)
    return array


def run_batch(batch: wire.Batch, cache: Cache, root: str, progress: Progress) -> wire.BatchResult:
    """Try everything; leave ``root/out/<attempt>/answers.zip``, on failure nothing.

    Raises WorkerError when no trial can be tried: archive unreadable, runtime not there.
    """
    target, started = folder(root, batch.attempt), time.perf_counter_ns()
    with storage("making the attempt's folder"):
        if os.path.isdir(target):
            shutil.rmtree(target)
        os.makedirs(target)
    try:
        os.close(cache.open(batch.archive, "E-INPUT-HASH"))
        facts: Dict[str, Any] = {}
        path = os.path.join(target, "answers.zip")
        with storage("working off a batch"):
            try:
                archive, deflated = cache.path(batch.archive.sha256), zipfile.ZIP_DEFLATED
                with zipfile.ZipFile(archive) as given, zipfile.ZipFile(path, "w", deflated) as out:
                    _Batch(batch, target, given, out, facts).work(progress)
            except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
                what = "the archive is not what a batch needs: %s" % error
                raise WorkerError("infra_error", "E-INPUT-FORMAT", what) from error
            file = _described(path)
        return wire.BatchResult(
            attempt=batch.attempt,
            answers=file,
            environment=environment.describe(batch.runtime, facts),
            archive_sha256=batch.archive.sha256,
            run_ns=time.perf_counter_ns() - started,
        )
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


_NOT_THE_TRIALS = (
    *("E-RUNTIME-MISSING", "E-RUNTIME-BROKEN"),
    *("E-WORKER-OOM", "E-WORKER-SHORT", "E-WORKER-IO", "E-DISK-FULL"),
)
"""Errors that say nothing of the trial they strike, and would strike the next as well."""


class _Batch:
    def __init__(
        self,
        batch: wire.Batch,
        target: str,
        given: zipfile.ZipFile,
        answers: zipfile.ZipFile,
        facts: Dict[str, Any],
    ) -> None:
        self._batch, self._target, self._facts = batch, target, facts
        self._given, self._answers = given, answers
        plan = json.loads(self._member(TRIALS))
        if not isinstance(plan, dict):
            raise ValueError("%s is no object" % TRIALS)
        self._trials = [wire.load(Trial, item) for item in plan.get("trials", [])]
        recipes = plan.get("made", {})
        self._recipes = {name: wire.load(Recipe, item) for name, item in recipes.items()}
        self._last: Tuple[str, Optional[Array]] = ("", None)
        self._watch = shortage.Watch(shortage.Need(batch.runtime.threads, folders=(target, None)))

    def work(self, progress: Progress) -> None:
        tried, told = [], time.monotonic()
        for number, trial in enumerate(self._trials):
            tried.append(self._try(number, trial))
            if time.monotonic() - told >= _PROGRESS_S:
                told = time.monotonic()
                total = len(self._trials)
                progress(
                    {
                        "attempt": self._batch.attempt,
                        "phase": "batch",
                        "done": number + 1,
                        "total": total,
                    }
                )
        self._answers.writestr(TRIED, json.dumps([wire.dump(item) for item in tried]))

    def _try(self, number: int, trial: Trial) -> Tried:
        arrays = [self._input(name) for name in trial.inputs]
        hashes = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
        suffix = self._batch.model_format
        path = os.path.join(self._target, "model-%d.%s" % (number, suffix))
        write_bytes(path, self._member(trial.model))
        try:
            with self._watch.section():
                return self._answer(number, trial, path, arrays, hashes)
        except WorkerError as refused:
            error = self._watch.follow(refused)
            if error.code in _NOT_THE_TRIALS:
                raise error from refused
            told = {"kind": error.kind, "code": error.code, "what": error.what}
            return Tried(trial.name, told, hashes)
        finally:
            os.unlink(path)

    def _answer(
        self, number: int, trial: Trial, path: str, arrays: List[Array], hashes: List[str]
    ) -> Tried:
        runtime = open_model(path, self._batch.model_format, self._batch.runtime)
        try:
            self._facts.update(runtime.version())
            outputs = self._run(number, runtime, arrays)
            if trial.graph:
                graph = runtime.graph()
                if graph is not None:
                    self._answers.writestr("%d/graph.onnx" % number, graph)
            return Tried(trial.name, None, hashes, runtime.backend(), outputs)
        finally:
            runtime.close()

    def _run(self, number: int, runtime: Runtime, arrays: List[Array]) -> List[Answer]:
        interface = runtime.describe()
        runs = {len(array) for array in arrays}
        if len(arrays) != len(interface.inputs) or len(runs) != 1:
            what = "model takes %d inputs" % len(interface.inputs)
            raise WorkerError("model_error", "E-MODEL-INPUT", what)
        for info, array in zip(interface.inputs, arrays):
            if str(array.dtype) != info.dtype or not _fits(info.shape, array.shape[1:]):
                what = "input %r takes %s%s, it is given %s%s" % (
                    *(info.name, info.dtype, info.shape),
                    *(array.dtype, list(array.shape[1:])),
                )
                raise WorkerError("model_error", "E-MODEL-INPUT", what)
        rows = []
        for i in range(runs.pop()):
            runtime.reset()
            rows.append(runtime.run([aligned(a[i]) for a in arrays]))
        found = []
        for j, info in enumerate(interface.outputs):
            parts = [row[j] for row in rows]
            if len({(part.shape, part.dtype) for part in parts}) != 1:
                raise WorkerError("model_error", "E-MODEL-OUTPUT", "output %d changes shape" % j)
            whole = np.stack(parts)
            buffer = io.BytesIO()
            np.save(buffer, whole, allow_pickle=False)
            self._answers.writestr("%d/output-%d.npy" % (number, j), buffer.getvalue())
            digest = hashlib.sha256(whole.tobytes()).hexdigest()
            shape = list(whole.shape)
            found.append(
                Answer(info.name, str(whole.dtype), shape, digest, info.scale, info.zero_point)
            )
        return found

    def _input(self, name: str) -> Array:
        """The one used last is kept: neighbouring trials often share theirs."""
        if self._last[0] != name or self._last[1] is None:
            if name in self._recipes:
                array = made(self._recipes[name])
            else:
                array = np.load(io.BytesIO(self._member(name)), allow_pickle=False)
            if array.ndim < 1 or len(array) < 1:
                raise ValueError("input %r holds no run" % name[:80])
            self._last = (name, array)
        found = self._last[1]
        assert found is not None  # set just above
        return found

    def _member(self, name: str) -> bytes:
        if self._given.getinfo(name).file_size > _LARGEST:
            raise ValueError("member %r is too large" % name[:80])
        return self._given.read(name)


def _fits(wanted: List[Optional[int]], given: Tuple[int, ...]) -> bool:
    return len(wanted) == len(given) and all(
        axis is None or axis == length for axis, length in zip(wanted, given)
    )


def _described(path: str) -> wire.DeviceFile:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return wire.DeviceFile(path, wire.Blob(digest.hexdigest(), os.path.getsize(path)))
