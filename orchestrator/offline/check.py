"""Does an answer belong to the job that left, and is it whole? Nothing is stored here.

The functions raise InputError E-INGEST-RESULT or E-INGEST-DEVICE.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from device_worker import wire
from device_worker.archive import OUTCOMES, Answer, Manifest, PackedJob, Result
from device_worker.outputs import sample_digest
from orchestrator.devices.identity import compared
from orchestrator.errors import InputError
from orchestrator.matrix.inventory import Device
from orchestrator.store.records import DeviceInfo

KEPT = ("machine", "hardware", "soc", "board")
"""Of what the farm has seen of a unit: what stays with it whatever is installed there."""

_ID = re.compile("E-[A-Z0-9-]{1,40}")


def check_answers(answers: list[Answer], manifest: Manifest) -> None:
    """Exactly one answer for every job, in its order."""
    if [a.attempt for a in answers] != [p.job.attempt for p in manifest.jobs]:
        _refuse("it does not answer the jobs that were packed")
    for answer, packed in zip(answers, manifest.jobs, strict=True):
        whole = (answer.outcome == "ok") == (answer.result is not None) == (answer.code is None)
        if answer.bundle not in (None, packed.bundle):
            _refuse(f"{packed.cell}: another hermetic Python ran than was packed")
        if answer.code is not None and not _ID.fullmatch(answer.code):
            _refuse(f"{packed.cell}: {answer.code[:40]!r} is no error")
        if answer.outcome not in OUTCOMES or not whole:
            _refuse(f"{packed.cell}: no answer has the outcome {answer.outcome[:40]!r} like this")


def expected_files(answers: list[Answer]) -> dict[str, int]:
    """sha256 -> size of the files that the answers refer to."""
    files: dict[str, int] = {}
    for answer in answers:
        for blob in answer.files.values():
            if files.setdefault(blob.sha256, blob.size) != blob.size or blob.size < 0:
                _refuse("its files have two sizes")
    return files


def check_answer(answer: Answer, packed: PackedJob, folder: Path) -> None:
    """The answer's files, which lie in ``folder`` named by hash, are what the job asks for."""
    result, job = answer.result, packed.job
    if result is None:
        return
    said = (result.attempt, result.model_sha256, result.input_sha256)
    if said != (job.attempt, job.model.sha256, [t.blob.sha256 for t in job.inputs]):
        _refuse(f"{packed.cell}: model or inputs are not those that were packed")
    if (result.repeats.count, result.repeats.samples) != (job.repeat, job.samples):
        _refuse(f"{packed.cell}: not as many passes and samples as were asked for")
    roles = {role: file.blob for role, file in result.files.items()}
    roles |= {f"output-{i}": output.blob for i, output in enumerate(result.outputs)}
    wanted = {"latency_ns", "sample_hashes", "telemetry"}
    if roles != answer.files or not result.outputs or wanted - set(roles):
        _refuse(f"{packed.cell}: its files are not those of its result")
    outputs = []
    for i, output in enumerate(result.outputs):
        array = _array(folder / output.blob.sha256, f"{packed.cell}: output-{i}")
        if (str(array.dtype), list(array.shape)) != (output.dtype, output.shape):
            _refuse(f"{packed.cell}: output-{i} is {array.dtype}{array.shape}, not what it says")
        if output.shape[:1] != [job.samples]:
            _refuse(f"{packed.cell}: output-{i} has not {job.samples} samples")
        outputs.append(array)
    latency = _array(folder / roles["latency_ns"].sha256, f"{packed.cell}: latency_ns")
    if (latency.dtype, latency.shape) != (np.dtype(np.int64), (job.samples,)):
        _refuse(f"{packed.cell}: latency_ns is {latency.dtype}{latency.shape}")
    hashes = _array(folder / roles["sample_hashes"].sha256, f"{packed.cell}: sample_hashes")
    if (hashes.dtype, hashes.shape) != (np.dtype(np.uint8), (job.samples, 32)):
        _refuse(f"{packed.cell}: sample_hashes is {hashes.dtype}{hashes.shape}")
    if hashes.tobytes() != b"".join(_digests(outputs, job.samples)):
        _refuse(f"{packed.cell}: the hashes of its samples are not those of its outputs")
    _check_telemetry(folder / roles["telemetry"].sha256, packed.cell)


def check_device(
    answer: Result, results: list[wire.JobResult], device: Device, known: DeviceInfo | None
) -> tuple[str, ...]:
    """The device that answers is of the class, and as far as is known the unit, that was meant.

    The names under ``identity`` in the inventory of which the answer says nothing.
    """
    missing: tuple[str, ...] = ()
    shown = {name: fact for name, fact in answer.facts.items() if fact is not None}
    for told in [answer.environment, *(result.environment for result in results)]:
        board, delegate = told.get("board") or {}, told.get("delegate") or {}
        says = delegate.get("standin") or board.get("class", device.class_)
        if says != device.class_:
            _other(device, f"the device says that it is a {says!r}, not a {device.class_!r}")
        machine, profile = told.get("machine"), device.profile
        if profile is not None and profile.machine and machine not in profile.machine:
            _other(device, f"the device's processor is {machine}")
        for name in KEPT:
            seen = None if known is None else known.identity.get(name)
            if seen is not None and told.get(name) != seen:
                _other(device, f"the device's {name} is not that of the unit the farm knows")
        wrong, missing = compared(device.identity, {**told, **shown})
        if wrong:
            _other(device, "; ".join(wrong))
    return missing


def _check_telemetry(path: Path, cell: str) -> None:
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            fine = isinstance(row["t_s"], int | float) and isinstance(row["values"], dict)
            if not fine:
                raise ValueError(line[:40])
    except (ValueError, KeyError, TypeError):
        _refuse(f"{cell}: its telemetry is no list of readings")


def _array(path: Path, what: str) -> NDArray[Any]:
    """A .npy of plain numbers that is as long as it says."""
    try:
        loaded = np.lib.format.open_memmap(path, mode="r")
        if path.stat().st_size != loaded.offset + loaded.nbytes:
            raise ValueError("longer than its header says")
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        _refuse(f"{what} is no .npy: {error}")
    return loaded


def _digests(outputs: list[NDArray[Any]], samples: int) -> Iterator[bytes]:
    for sample in range(samples):
        yield sample_digest([output[sample] for output in outputs])


def _refuse(what: str) -> NoReturn:
    raise InputError(
        "E-INGEST-RESULT",
        f"not stored: {what}",
        mend="the result was changed, or run.sh was; run the archive again",
    )


def _other(device: Device, what: str) -> NoReturn:
    raise InputError(
        "E-INGEST-DEVICE",
        f"not stored: {what}",
        where=device.name,
        mend="run the archive on the device it was packed for, or correct the inventory",
    )
