"""Batches of small models: the archive that goes to a device, and the answers that come back.

The form of both archives is that of `device_worker.batch`.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_worker import plain, wire
from device_worker.archive import DOCUMENT_LIMIT
from device_worker.batch import TRIALS, TRIED, Recipe, Trial, Tried
from device_worker.runtimes import FORMATS
from device_worker.scratch import scratch
from orchestrator.devices.session import DeviceSession
from orchestrator.devices.worker import Worker
from orchestrator.errors import InfraError
from orchestrator.results import npy
from orchestrator.results.finished import shown

Array = NDArray[Any]

UNPACKED_LIMIT = 1 << 30
"""Bytes of all members of the answers, unpacked."""

_NO_ANSWERS = (
    *(zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError),
    *(NotImplementedError, RuntimeError, MemoryError),
)
"""What reading a zip raises that is none: of methods unknown, or under a password, as well."""


@dataclass(frozen=True)
class Archive:
    """The bytes of a packed batch. Equal contents give equal bytes, and so one hash."""

    data: bytes = field(repr=False)

    @property
    def blob(self) -> wire.Blob:
        return wire.Blob(hashlib.sha256(self.data).hexdigest(), len(self.data))


@dataclass(frozen=True, eq=False)
class Answered:
    """One trial and its ``outputs``, each [runs, *shape of the tensor]; none where it failed."""

    tried: Tried
    outputs: tuple[Array, ...] = ()
    graph: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Answers:
    trials: tuple[Answered, ...]
    environment: Mapping[str, Any]
    run_ns: int

    def __getitem__(self, name: str) -> Answered:
        return next(answer for answer in self.trials if answer.tried.name == name)


def pack(
    trials: Sequence[Trial],
    models: Mapping[str, bytes],
    arrays: Mapping[str, Array] | None = None,
    made: Mapping[str, Recipe] | None = None,
) -> Archive:
    """``models`` and ``arrays`` by the names that the trials use for them.

    Raises ValueError when a trial names something that is not there, or two things have one name.
    """
    given, recipes = dict(arrays or {}), dict(made or {})
    for names in ([*models, *given, *recipes], [trial.name for trial in trials]):
        if len(names) != len(set(names)):
            raise ValueError("names of trials, models and inputs must differ")
    members = dict(models)
    for name, array in given.items():
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        members[name] = buffer.getvalue()
    for trial in trials:
        missing = {trial.model} - set(models) | set(trial.inputs) - set(given) - set(recipes)
        if missing:
            raise ValueError(
                f"trial {trial.name!r} names {sorted(missing)[0]!r}, which is not there"
            )
    plan = {
        "trials": [wire.dump(trial) for trial in trials],
        "made": {name: wire.dump(recipe) for name, recipe in recipes.items()},
    }
    members[TRIALS] = json.dumps(plan, sort_keys=True).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            # The date of a member would make a new archive of the same content every second.
            archive.writestr(zipfile.ZipInfo(name), members[name], zipfile.ZIP_DEFLATED)
    return Archive(buffer.getvalue())


def run(
    session: DeviceSession,
    worker: Worker,
    archive: Archive,
    runtime: wire.RuntimeSpec,
    *,
    timeout: float | None = None,
) -> Answers:
    """Bring the archive to the leased device, unless it has it, and try everything in it there.

    Raises what a job raises; a trial that fails is an answer.
    """
    with scratch("batch") as name:
        folder = Path(name)
        (folder / "archive").write_bytes(archive.data)
        session.ensure(worker, {archive.blob.sha256: folder / "archive"})
        attempt, form = f"batch-{secrets.token_hex(6)}", FORMATS[runtime.runtime]
        batch = wire.Batch(attempt, archive.blob, form, runtime)
        result = session.batch(worker, batch, folder / "answers", timeout)
        return read(folder / "answers", result)


def read(path: Path, result: wire.BatchResult) -> Answers:
    """The answers of a batch, unpacked and checked.

    No more is unpacked than UNPACKED_LIMIT, and nothing twice. Raises InfraError E-WORKER-GARBAGE
    for answers that are not what the worker says they are, E-RESULT-… for files that are not
    arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            plan = plain.decode(b'{"tried":%s}' % archive.read(TRIED), DOCUMENT_LIMIT)["tried"]
            if not isinstance(plan, list):
                raise ValueError(f"{TRIED} is no list")
            tried = [wire.load(Tried, item) for item in plan]
            trials = tuple(_answered(archive, members, i, item) for i, item in enumerate(tried))
    except _NO_ANSWERS as error:
        why = shown(str(error)) or type(error).__name__
        raise InfraError("E-WORKER-GARBAGE", f"answers of a batch: {why}") from error
    return Answers(trials, result.environment, result.run_ns)


def _members(archive: zipfile.ZipFile) -> set[str]:
    """The names of its members, each once; all of them fit into memory. Raises ValueError."""
    infos = archive.infolist()
    names = {info.filename for info in infos}
    total = sum(info.file_size for info in infos)
    if len(names) != len(infos):
        raise ValueError("two members have one name")
    if total > UNPACKED_LIMIT:
        raise ValueError(f"they unpack to {total} bytes, the limit is {UNPACKED_LIMIT}")
    if TRIED in names and archive.getinfo(TRIED).file_size > DOCUMENT_LIMIT:
        raise ValueError(f"{TRIED} is too large")
    return names


def _answered(archive: zipfile.ZipFile, members: set[str], i: int, tried: Tried) -> Answered:
    outputs = []
    for j, told in enumerate(tried.outputs):
        name = f"{i}/output-{j}.npy"
        array = npy.read(archive.read(name), name, dtype=told.dtype, shape=told.shape)
        if hashlib.sha256(array.tobytes()).hexdigest() != told.sha256:
            raise ValueError(f"output {j} of {tried.name!r} has another hash than it should")
        outputs.append(array)
    graph = f"{i}/graph.onnx"
    return Answered(tried, tuple(outputs), archive.read(graph) if graph in members else None)
