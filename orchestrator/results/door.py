"""The door: everything that is to be stored of an attempt, checked once and whole, byte by byte."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace

from device_worker import plain, wire
from device_worker.outputs import sample_digest
from orchestrator.errors import InfraError
from orchestrator.results import npy
from orchestrator.results.check import LONGEST_NS, Asked, announced, in_range, job_result
from orchestrator.results.files import of_device, refuse
from orchestrator.results.finished import Failure, Finished, shown

OUTCOMES = ("model_error", "infra_error", "timeout", "not_available")
_ID = re.compile(r"E-[A-Z0-9-]{1,40}")


def admitted(finished: Finished, asked: Asked) -> Finished:
    """``finished`` if it passes the door, else the same attempt with its failure.

    The failure is an InfraError E-RESULT-….
    """
    try:
        with of_device(asked.device):
            check(finished, asked)
    except InfraError as error:
        return replace(
            finished,
            attempt=asked.job.attempt,
            device=asked.device,
            token=asked.token,
            failure=Failure.of(error),
            result=None,
            files={},
        )
    return finished


def check(finished: Finished, asked: Asked) -> None:
    """Raises InfraError E-RESULT-FILES, -FORM, -HASH, -JOB, -SHAPE, -SIZE or -VALUE."""
    said = (finished.attempt, finished.device, finished.token)
    if said != (asked.job.attempt, asked.device, asked.token):
        refuse("E-RESULT-JOB", f"it is of {said[0][:40]!r} on {said[1][:40]!r}, which is another")
    in_range("started", finished.started_unix, 0, LONGEST_NS)
    in_range("ended", finished.ended_unix, 0, LONGEST_NS)
    if finished.failure is not None:
        _check_failure(finished, finished.failure)
        return
    result = job_result(finished.result)
    _check_files(result, announced(result, asked), finished.files)


def _check_failure(finished: Finished, failure: Failure) -> None:
    if finished.result is not None or finished.files:
        refuse("E-RESULT-FORM", "a failure comes with an answer")
    known = failure.outcome in OUTCOMES and _ID.fullmatch(failure.id)
    if not known or failure.text != " ".join(failure.text.split()):
        refuse("E-RESULT-FORM", f"{failure.id[:40]!r} is no failure")


def _check_files(
    result: wire.JobResult, blobs: Mapping[str, wire.Blob], files: Mapping[str, bytes]
) -> None:
    """Every file is what the worker said of it, and they fit together."""
    if set(files) != set(blobs):
        odd = sorted(set(files) ^ set(blobs))[0]
        refuse("E-RESULT-FILES", f"{odd[:40]!r} is missing, or is too many")
    for name, blob in blobs.items():
        if len(files[name]) != blob.size:
            refuse("E-RESULT-SIZE", f"{name} has {len(files[name])} bytes for {blob.size}")
        if hashlib.sha256(files[name]).hexdigest() != blob.sha256:
            refuse("E-RESULT-HASH", f"{name} has other bytes than its device reported")
    outputs = [
        npy.read(files[f"output-{i}"], f"output-{i}", dtype=output.dtype, shape=output.shape)
        for i, output in enumerate(result.outputs)
    ]
    samples = result.repeats.samples
    ns = npy.read(files["latency_ns"], "latency_ns", dtype="int64", shape=[samples])
    hashes = files["sample_hashes"]
    told = npy.read(hashes, "sample_hashes", dtype="uint8", shape=[samples, 32])
    # Of one sample no time is negative, and all together are part of the whole.
    in_range("latency_ns", int(ns.min()), 0, LONGEST_NS)
    in_range("latency_ns", int(ns.max()), 0, LONGEST_NS)
    in_range("the sum of latency_ns", sum(ns.tolist()), 0, result.run_ns)
    for sample in range(samples):
        if sample_digest([output[sample] for output in outputs]) != told[sample].tobytes():
            refuse("E-RESULT-HASH", f"sample {sample} has other outputs than its hash says")
    check_telemetry(files["telemetry"])


def check_telemetry(data: bytes) -> None:
    """Raises InfraError E-RESULT-FORM unless it is a list of readings, one JSON object a line."""
    try:
        for line in data.splitlines():
            for name in wire.load(wire.Reading, plain.decode(line)).values:
                if name != shown(name):
                    raise wire.WireError(f"no sensor is called {name[:40]!r}")
    except wire.WireError as error:
        refuse("E-RESULT-FORM", f"its telemetry is no list of readings: {error}")
