"""Does an answer belong to the job that left, and come from its device? Nothing is stored here.

The functions raise InputError E-INGEST-RESULT or E-INGEST-DEVICE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

from device_worker import wire
from device_worker.archive import OUTCOMES, Answer, Manifest, Result
from orchestrator.devices.identity import compared
from orchestrator.errors import InfraError, InputError
from orchestrator.matrix.inventory import Device
from orchestrator.results.check import Asked, Declared, announced
from orchestrator.results.files import REFUSED
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


def expected_files(
    answers: list[Answer], manifest: Manifest, outputs: Mapping[str, Sequence[Declared]]
) -> dict[str, int]:
    """sha256 -> size of the files that the answers refer to, each as large as it may be.

    ``outputs``: cell -> what its model declares.
    """
    files: dict[str, int] = {}
    for answer, packed in zip(answers, manifest.jobs, strict=True):
        if answer.result is None:
            if answer.files:
                _refuse(f"{packed.cell}: a failure comes with files")
            continue
        with passing(packed.cell):
            asked = Asked(packed.job, manifest.device, 0, outputs[packed.cell])
            blobs = announced(answer.result, asked)
        if blobs != answer.files:
            _refuse(f"{packed.cell}: its files are not those of its result")
        for blob in blobs.values():
            if files.setdefault(blob.sha256, blob.size) != blob.size:
                _refuse("its files have two sizes")
    return files


@contextmanager
def passing(cell: str) -> Iterator[None]:
    """What the door refuses is refused here by that name, before anything is stored."""
    try:
        yield
    except InfraError as error:
        if not error.id.startswith("E-RESULT-"):
            raise
        _refuse(f"{cell}: {error.what.removeprefix(REFUSED)} [{error.id}]")


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


def _refuse(what: str) -> NoReturn:
    raise InputError(
        "E-INGEST-RESULT",
        f"not stored: {what}",
        fix="the result was changed, or run.sh was; run the archive again",
    )


def _other(device: Device, what: str) -> NoReturn:
    raise InputError(
        "E-INGEST-DEVICE",
        f"not stored: {what}",
        where=device.name,
        fix="run the archive on the device it was packed for, or correct the inventory",
    )
