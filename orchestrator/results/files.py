"""Which files an attempt leaves, and how large each may be: nothing of it is the device's choice.

A device names a file's role, its place and its size. Roles are a closed list, outputs are numbered,
the place is the attempt's own folder, and the size follows from dtype and shape, so that all of it
is known before a byte is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import NamedTuple, NoReturn

from device_worker import wire
from orchestrator.errors import InfraError

ROLES = ("latency_ns", "sample_hashes", "telemetry")
FILES_LIMIT = 4 << 30
"""Bytes of all files of one attempt."""
TELEMETRY_LIMIT = 256 << 20
OUTPUTS_LIMIT = 1024
HEADER_LIMIT = 10_240
"""Bytes of a .npy's header; NumPy itself reads no more than 10,000 unless told to."""
DIMENSIONS = 32

ITEM_SIZES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}
"""Bytes of one element of each type that an output can have."""

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Wanted(NamedTuple):
    """``local``: the name it gets here. ``remote``: its own name in the attempt's folder."""

    local: str
    remote: str
    file: wire.DeviceFile


def wanted(result: wire.JobResult, samples: int) -> list[Wanted]:
    """Every file of ``result``, an answer for ``samples`` samples, each as it may be brought.

    Raises InfraError E-RESULT-FILES, E-RESULT-SIZE, E-RESULT-SHAPE.
    """
    found = [
        Wanted(local, place(file, result.attempt), file)
        for local, file in described(result, samples)
    ]
    if len({w.remote for w in found}) != len(found):
        refuse("E-RESULT-FILES", "two of its files are one")
    return found


def described(result: wire.JobResult, samples: int) -> Iterator[tuple[str, wire.DeviceFile]]:
    """(local name, device's file) of each file; what is said of them is possible. As `wanted`."""
    if not 1 <= len(result.outputs) <= OUTPUTS_LIMIT:
        refuse("E-RESULT-SHAPE", f"it has {len(result.outputs)} outputs")
    if sorted(result.files) != sorted(ROLES):
        names = ", ".join(repr(name[:40]) for name in sorted(result.files)[:4]) or "none"
        refuse("E-RESULT-FILES", f"its files are {names}, not {', '.join(ROLES)}")
    for i, output in enumerate(result.outputs):
        fits = npy_size(output.dtype, output.shape, f"output-{i}")
        if output.shape[:1] != [samples]:
            refuse("E-RESULT-SHAPE", f"output-{i} has shape {output.shape}, not {samples} samples")
        _check_size(f"output-{i}", output.blob, *fits)
    _check_size("latency_ns", result.files["latency_ns"].blob, *npy_size("int64", [samples]))
    hashes = npy_size("uint8", [samples, 32])
    _check_size("sample_hashes", result.files["sample_hashes"].blob, *hashes)
    _check_size("telemetry", result.files["telemetry"].blob, 0, TELEMETRY_LIMIT)
    files = [
        *((f"output-{i}", wire.DeviceFile(o.path, o.blob)) for i, o in enumerate(result.outputs)),
        *((role, result.files[role]) for role in ROLES),
    ]
    total = sum(file.blob.size for _, file in files)
    if total > FILES_LIMIT:
        refuse("E-RESULT-SIZE", f"its files have {total} bytes, the limit is {FILES_LIMIT}")
    yield from files


def place(file: wire.DeviceFile, attempt: str) -> str:
    """The file's own name below the worker's ``out/<attempt>``. Raises InfraError E-RESULT-FILES.

    What stands before that folder is not looked at: it is reached from the device's root.
    """
    path = PurePosixPath(file.path)
    parents = path.parts[-3:-1]
    if parents != ("out", attempt) or not _PLAIN.fullmatch(path.name) or ".." in path.parts:
        refuse("E-RESULT-FILES", f"{file.path[:120]!r} is no file of this attempt")
    return path.name


def npy_size(dtype: str, shape: list[int], what: str = "a file") -> tuple[int, int]:
    """Least and greatest bytes of a .npy of that dtype and shape. As `wanted`."""
    item = ITEM_SIZES.get(dtype)
    if item is None:
        refuse("E-RESULT-SHAPE", f"{what} has the type {dtype[:40]!r}")
    if len(shape) > DIMENSIONS or any(n < 0 for n in shape):
        refuse("E-RESULT-SHAPE", f"{what} has the shape {str(shape)[:80]}")
    payload = math.prod(shape) * item
    return payload + 1, payload + HEADER_LIMIT


def _check_size(what: str, blob: wire.Blob, least: int, most: int) -> None:
    if not _SHA256.fullmatch(blob.sha256):
        refuse("E-RESULT-FORM", f"{what} has {blob.sha256[:80]!r} for its sha256")
    if not least <= blob.size <= most:
        refuse("E-RESULT-SIZE", f"{what} has {blob.size} bytes, which does not fit what it holds")


@contextmanager
def of_device(device: str) -> Iterator[None]:
    """What is refused in the block says of which device it came."""
    try:
        yield
    except InfraError as error:
        if error.where is not None or not error.id.startswith("E-RESULT-"):
            raise
        raise InfraError(
            error.id, error.what, where=device, fix=error.fix, retryable=error.retryable
        ) from error


def refuse(id: str, what: str) -> NoReturn:
    raise InfraError(id, REFUSED + what, fix=_FIX)


REFUSED = "the result is refused: "
_FIX = "suspect the device's storage, memory or link, or the device itself"
