"""One job: verify, load, warm up, run every sample, repeat, and say exactly what happened."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import time
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import numpy.typing as npt

from device_worker import environment, power, shortage, soak
from device_worker.arrays import Array
from device_worker.attempts import folder
from device_worker.cache import Cache, sha256_fd
from device_worker.errors import WorkerError, storage
from device_worker.feed import Feed, load
from device_worker.guard import Clock, Guard
from device_worker.outputs import Outputs, sample_digest, write_bytes, write_npy
from device_worker.runtimes import Runtime, TensorInfo, bound_to, misfit, open_model
from device_worker.telemetry.sampler import Sampler
from device_worker.telemetry.sensors import Sensors, hottest
from device_worker.wire import (
    Blob,
    DeviceFile,
    InputTensor,
    Job,
    JobResult,
    Ordered,
    Repeats,
    Soaked,
)

Progress = Callable[[Dict[str, Any]], None]
Run = Callable[[Sequence[Array]], List[Array]]
_REPORTED = 20
_PROGRESS_NS = 1_000_000_000


def run_job(job: Job, cache: Cache, root: str, progress: Progress) -> JobResult:
    """Run ``job`` and leave its files in ``root/out/<attempt>/``; on failure leave nothing.

    ``latency_ns`` holds the time of each call into the runtime's Python API, feeding inputs and
    reading outputs included; hashing and writing are outside of it. ``run_ns`` is the wall time
    of all passes, everything included. The run is stopped above ``job.ceiling_c``; under
    ``job.power`` the device is in that mode meanwhile, and back in its own afterwards.
    Raises WorkerError.
    """
    clock = Clock()
    target = folder(root, job.attempt)
    _check_job(job)
    with storage("making the attempt's folder"):
        if os.path.isdir(target):
            shutil.rmtree(target)
        os.makedirs(target)
    try:
        # Another worker of this lease may have been killed in the middle of a power mode.
        power.recover(root)
        arrays = {tensor.name: _array(tensor, cache) for tensor in job.inputs}
        with _model(job.model, cache) as (path, verify), _power(job, root) as mode:
            watch = shortage.Watch(_need(job, target))
            runtime = _load(path, job, verify, watch)
            try:
                result = _measure(job, runtime, watch, arrays, target, progress, clock, mode)
            finally:
                runtime.close()
            verify()
            return result
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _check_job(job: Job) -> None:
    if job.samples < 1 or job.repeat < 1 or job.warmup < 0:
        raise WorkerError("infra_error", "E-WIRE", "samples, repeat or warmup out of range")
    for tensor in job.inputs:
        if not tensor.shape or tensor.shape[0] < job.samples:
            raise WorkerError(
                "infra_error",
                "E-INPUT-FORMAT",
                "input %r has shape %s, the job needs %d samples"
                % (tensor.name, tensor.shape, job.samples),
            )


def _need(job: Job, target: str) -> shortage.Need:
    cpus = bound_to(job.runtime)
    return shortage.Need(job.runtime.threads, job.model.size, cpus, (target, None))


def _load(path: str, job: Job, verify: Callable[[], None], watch: shortage.Watch) -> Runtime:
    """The loaded model; what is to blame where it cannot be had, the model last of all."""
    refused = shortage.cpus(bound_to(job.runtime))
    if refused is not None:
        raise refused  # a runtime goes on without, and says so to nobody
    try:
        with watch.section():
            return open_model(path, job.model_format, job.runtime)
    except WorkerError as error:
        if error.kind == "model_error":
            verify()  # a file that changed under the runtime is not the model's fault
        cause = watch.follow(error)
        if cause.kind == "model_error":
            _load_again(path, job, error)
        raise cause from error


def _load_again(path: str, job: Job, refused: WorkerError) -> None:
    """Raises WorkerError E-WORKER-SHORT when the model is taken now, or with fewer threads."""
    for threads in sorted({job.runtime.threads, 1}, reverse=True):
        try:
            open_model(path, job.model_format, replace(job.runtime, threads=threads)).close()
        except WorkerError:
            continue
        many = "s" if threads < job.runtime.threads else ""
        what = "what the model needs with %d thread%s" % (job.runtime.threads, many)
        raise shortage.passed(what, refused)


@contextlib.contextmanager
def _model(blob: Blob, cache: Cache) -> Iterator[Tuple[str, Callable[[], None]]]:
    """Path of the verified model, and a check that its bytes are still the same."""
    fd = cache.open(blob, "E-MODEL-HASH")
    path = cache.path(blob.sha256)

    def verify() -> None:
        with storage("hashing the model again"):
            same = sha256_fd(fd) == blob.sha256
        # Another session may evict the file meanwhile, which harms nobody; a new file in its
        # place means that nobody knows which one the runtime read.
        with contextlib.suppress(FileNotFoundError):
            same = same and os.path.samestat(os.stat(path), os.fstat(fd))
        if not same:
            raise WorkerError(
                "infra_error",
                "E-MODEL-CHANGED",
                "the bytes of model %s changed during the run" % blob.sha256[:12],
                "find out who else writes to the device's cache",
            )

    try:
        yield path, verify
    finally:
        os.close(fd)


def _array(tensor: InputTensor, cache: Cache) -> Array:
    """The verified input, exactly of the dtype and shape that the job says."""
    os.close(cache.open(tensor.blob, "E-INPUT-HASH"))
    try:
        array = load(cache.path(tensor.blob.sha256))
    except (ValueError, EOFError, OSError) as error:
        raise WorkerError(
            "infra_error", "E-INPUT-FORMAT", "input %r is no .npy: %s" % (tensor.name, error)
        ) from error
    found, declared = (str(array.dtype), list(array.shape)), (tensor.dtype, tensor.shape)
    if found != declared:
        raise WorkerError(
            "infra_error",
            "E-INPUT-FORMAT",
            "input %r holds %s%s, the job says %s%s" % (tensor.name, *found, *declared),
        )
    return array


def matched(wanted: Sequence[TensorInfo], given: Dict[str, Array]) -> List[Array]:
    """The given arrays in the model's order, by name; a single one needs no matching name.

    Raises WorkerError E-INPUT-MISFIT unless each sample, with a leading axis of 1,
    fits the dtype and shape of the model.
    """
    names = [info.name for info in wanted]
    if len(names) == len(given) == 1:
        arrays = list(given.values())
    elif set(names) == set(given):
        arrays = [given[name] for name in names]
    else:
        raise misfit("model takes %s, job gives %s" % (sorted(names), sorted(given)))
    for info, array in zip(wanted, arrays):
        sample = [1, *array.shape[1:]]
        fits = len(sample) == len(info.shape) and all(
            axis is None or axis == length for axis, length in zip(info.shape, sample)
        )
        if not fits or str(array.dtype) != info.dtype:
            raise misfit(
                "input %r takes %s%s, a sample is %s%s"
                % (info.name, info.dtype, info.shape, array.dtype, sample)
            )
    return arrays


def shuffled(samples: int, seed: Optional[int]) -> Sequence[int]:
    """The order in which a pass runs its samples; without a seed their own.

    Sorted by numbers of ``random()``, the one method whose sequence Python keeps across versions.
    """
    if seed is None:
        return range(samples)
    numbers = random.Random(seed)
    keys = [numbers.random() for _ in range(samples)]
    return sorted(range(samples), key=keys.__getitem__)


@contextlib.contextmanager
def _power(job: Job, root: str) -> Iterator[Optional[power.Active]]:
    if job.power is None:
        yield None
        return
    with power.in_mode(job.power, root, job.attempt) as active:
        yield active


def _measure(
    job: Job,
    runtime: Runtime,
    watch: shortage.Watch,
    given: Dict[str, Array],
    target: str,
    progress: Progress,
    clock: Clock,
    mode: Optional[power.Active],
) -> JobResult:
    interface = runtime.describe()
    feed = Feed(matched(interface.inputs, given))
    run = _patient(runtime, watch)
    with watch.section():
        for turn in range(job.warmup):
            runtime.reset()
            run(feed.sample(turn % job.samples))

    watched = job.ceiling_c is not None or job.soak is not None
    sampler = Sampler(
        job.telemetry_hz,
        Sensors(job.sources),
        watched=watched,
        heated=job.soak is not None,
    )
    guard = Guard(job.ceiling_c, sampler.latest)
    loop = _Loop(job, runtime, run, feed, progress, guard)
    outputs = Outputs(target, interface.outputs, job.samples)
    try:
        with storage("writing outputs"):
            sampler.start()
            begin = time.perf_counter_ns()
            loop.first_pass(outputs)
            ordered = loop.again_at_the_end()
            repeats = loop.repeats()
            soaked = loop.soak()
            run_ns = time.perf_counter_ns() - begin
            readings = sampler.stop()
            soaked = soaked and soak.shown(soaked, [hottest(r.values) for r in readings])
            if mode is not None:
                mode.check()
            tensors = outputs.finish()
            lines = "".join(json.dumps(row.as_json()) + "\n" for row in readings)
            files: Dict[str, DeviceFile] = {
                "latency_ns": write_npy(os.path.join(target, "latency_ns.npy"), loop.latency),
                "sample_hashes": write_npy(os.path.join(target, "sample_hashes.npy"), loop.hashes),
                "telemetry": write_bytes(os.path.join(target, "telemetry.jsonl"), lines.encode()),
            }
    finally:
        sampler.stop()
        outputs.close()
    with watch.section():
        backend = runtime.backend()
    return JobResult(
        attempt=job.attempt,
        outputs=tensors,
        files=files,
        backend=backend,
        repeats=repeats,
        telemetry=sampler.summary(),
        environment=environment.describe(job.runtime, runtime.version()),
        model_sha256=job.model.sha256,
        input_sha256=[tensor.blob.sha256 for tensor in job.inputs],
        load_ns=runtime.load_ns,
        run_ns=run_ns,
        started_unix=clock.started,
        ended_unix=clock.now(),
        soak=soaked,
        power=mode.name if mode else None,
        order=ordered,
        notes=[
            *runtime.notes,
            *guard.notes(),
            *sampler.notes(),
            *clock.notes(),
            *(soak.notes(soaked) if soaked else []),
        ],
    )


def _patient(runtime: Runtime, watch: shortage.Watch) -> Run:
    """``runtime.run``, whose failure is the model's only if nothing ran out and it fails again."""

    def run(given: Sequence[Array]) -> List[Array]:
        try:
            return runtime.run(given)
        except WorkerError as error:
            cause = watch.follow(error)
            if cause.kind == "model_error":
                runtime.reset()
                runtime.run(given)
                cause = shortage.passed("what an inference needs", error)
            raise cause from error

    return run


class _Loop:
    """Passes over the samples: ``latency`` int64 [samples] ns, ``hashes`` uint8 [samples, 32]."""

    def __init__(
        self, job: Job, runtime: Runtime, run: Run, feed: Feed, progress: Progress, guard: Guard
    ) -> None:
        self._job, self._feed, self._guard = job, feed, guard
        self._runtime, self._run = runtime, run
        self._progress, self._told = progress, time.perf_counter_ns()
        self._sequence = shuffled(job.samples, job.order)
        self.latency: npt.NDArray[np.int64] = np.zeros(job.samples, np.int64)
        self.hashes: npt.NDArray[np.uint8] = np.zeros((job.samples, 32), np.uint8)

    def first_pass(self, outputs: Outputs) -> None:
        run, take, clock = self._run, self._feed.sample, time.perf_counter_ns
        for done, sample in enumerate(self._sequence):
            given = take(sample)
            self._runtime.reset()
            begin = clock()
            found = run(given)
            end = clock()
            self.latency[sample] = end - begin
            self.hashes[sample] = np.frombuffer(outputs.add(found, sample), np.uint8)
            self._guard.check()
            self._tell(end, "run", done + 1, self._job.samples)

    def again_at_the_end(self) -> Optional[Ordered]:
        """Of a shuffled pass: its first sample once more, after all the others."""
        if self._job.order is None:
            return None
        sample = self._sequence[0]
        same = self._again(sample) == self.hashes[sample].tobytes()
        return Ordered(self._job.order, sample, same)

    def repeats(self) -> Repeats:
        """Run everything ``repeat - 1`` times more and compare with the first pass."""
        samples, count = self._job.samples, self._job.repeat
        expected = [row.tobytes() for row in self.hashes]
        mismatches = 0
        first: List[List[int]] = []
        for repeat in range(1, count):
            for sample in range(samples):
                if self._again(sample) != expected[sample]:
                    mismatches += 1
                    if len(first) < _REPORTED:
                        first.append([sample, repeat])
                self._guard.check()
                done = (repeat - 1) * samples + sample + 1
                self._tell(time.perf_counter_ns(), "repeat", done, (count - 1) * samples)
        return Repeats(count, samples, mismatches, first)

    def soak(self) -> Optional[Soaked]:
        """Heat and hold as the job says, every output compared with the first pass."""
        if self._job.soak is None:
            return None

        def tell(done: int, total: int) -> None:
            self._tell(time.perf_counter_ns(), "soak", done, total)

        expected = [row.tobytes() for row in self.hashes]
        return soak.run(self._job.soak, self._again, expected, self._guard, tell)

    def _again(self, sample: int) -> bytes:
        self._runtime.reset()
        return sample_digest(self._run(self._feed.sample(sample)))

    def _tell(self, now: int, phase: str, done: int, total: int) -> None:
        if now - self._told >= _PROGRESS_NS:
            self._told = now
            self._progress(
                {"attempt": self._job.attempt, "phase": phase, "done": done, "total": total}
            )
