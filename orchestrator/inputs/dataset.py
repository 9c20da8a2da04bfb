"""Input sets from files: real values, labels and slices, refused rather than guessed at.

Nothing is unpickled, nothing is scaled; `orchestrator.inputs.prepare` makes what a model takes.
"""

from __future__ import annotations

import tokenize
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.inputs import images, tables
from orchestrator.matrix.model import CsvInputs, InputSpec, NpyInputs, NpzInputs
from orchestrator.matrix.work import BROKEN_FILE

Array = NDArray[Any]

MAX_ARRAY_BYTES = 8 << 30
"""Largest array, unpacked, that is read: a small zip can claim to hold anything."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """``x`` [n, ...] numbers without NaN or infinity, n >= 1; ``labels`` [n, ...] or None;

    ``slices`` name → [n].
    """

    x: Array
    labels: Array | None
    slices: Mapping[str, Array]


def load(spec: InputSpec) -> Dataset:
    """Read an input set, its ``limit`` applied.

    Raises InputError E-INPUT-UNREADABLE (damaged or missing file), E-INPUT-ARRAY (no such array or
    column), E-INPUT-PICKLE (Python objects inside), E-INPUT-DTYPE (not numbers), E-INPUT-NAN,
    E-INPUT-EMPTY, E-INPUT-LABELS and E-INPUT-SLICES (another length), E-INPUT-SHAPE,
    E-INPUT-SIZE, E-INPUT-PILLOW.
    """
    if isinstance(spec, NpzInputs):
        found = _npz(spec)
    elif isinstance(spec, NpyInputs):
        labels = None if spec.labels is None else _npy(spec.labels)
        found = Dataset(_npy(spec.path), labels, {})
    elif isinstance(spec, CsvInputs):
        found = Dataset(*tables.read(spec))
    else:
        found = Dataset(*images.read(spec), {})
    where = str(spec.path)
    _check_x(found.x, where)
    count = len(found.x)
    if found.labels is not None:
        _check_labels(found.labels, count, where)
    for name, values in found.slices.items():
        if values.shape != (count,):
            raise InputError(
                "E-INPUT-SLICES",
                f"slice {name!r} has shape {values.shape}, there are {count} samples",
                where=where,
            )
    limit = spec.limit
    return Dataset(
        np.ascontiguousarray(found.x[:limit]),
        None if found.labels is None else found.labels[:limit],
        {name: values[:limit] for name, values in found.slices.items()},
    )


def _check_x(x: Array, where: str) -> None:
    if x.dtype.kind not in "fiub":
        raise InputError("E-INPUT-DTYPE", f"samples are {x.dtype}, not numbers", where=where)
    if x.ndim == 0 or x.size == 0:
        raise InputError("E-INPUT-EMPTY", f"no samples: the shape is {x.shape}", where=where)
    _check_finite(x, "sample", where)


def _check_labels(labels: Array, count: int, where: str) -> None:
    if labels.dtype.kind not in "fiub":
        raise InputError(
            "E-INPUT-DTYPE",
            f"labels are {labels.dtype}, not numbers",
            where=where,
            mend="give class numbers; their names belong to the model's task",
        )
    if labels.ndim == 0 or len(labels) != count:
        raise InputError(
            "E-INPUT-LABELS", f"labels have shape {labels.shape}, {count} samples", where=where
        )
    _check_finite(labels, "label of sample", where)


def _check_finite(values: Array, what: str, where: str) -> None:
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        raise InputError(
            "E-INPUT-NAN",
            f"{what} {int(bad.argmax())} (and {int(bad.sum()) - 1} more) holds NaN or infinity",
            where=where,
        )


def _npz(spec: NpzInputs) -> Dataset:
    wanted = [spec.array, *([spec.labels] if spec.labels else []), *spec.slices]
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(spec.path) as archive:
            names = archive.namelist()
            for name in wanted:
                member = f"{name}.npy"
                if member not in names:
                    known = ", ".join(sorted(n.removesuffix(".npy") for n in names))
                    raise InputError(
                        "E-INPUT-ARRAY",
                        f"there is no array {name!r}",
                        where=str(spec.path),
                        mend=f"it has {known or 'none'}",
                    )
                size = archive.getinfo(member).file_size
                with archive.open(member) as file:
                    arrays[name] = _array(file, size, f"{spec.path}[{name}]")
    except BROKEN_FILE as error:
        raise _unreadable(str(spec.path), error) from None
    return Dataset(
        arrays[spec.array],
        arrays[spec.labels] if spec.labels else None,
        {name: arrays[name] for name in spec.slices},
    )


def _npy(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size, str(path))
    except OSError as error:
        raise _unreadable(str(path), error) from None


def _array(file: Any, size: int, where: str) -> Array:
    if size > MAX_ARRAY_BYTES:
        raise InputError(
            "E-INPUT-SIZE", f"{size} bytes, more than {MAX_ARRAY_BYTES} are not read", where=where
        )
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"unsupported .npy version {version}")
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise InputError(
                "E-INPUT-PICKLE",
                "holds pickled Python objects, which are never loaded",
                where=where,
                mend="save it as an array of numbers",
            )
        count = 1
        for n in shape:  # Python integers: a hostile header must not overflow
            count *= n
        body = file.read(count * dtype.itemsize) if count * dtype.itemsize <= size else b""
        if len(body) != count * dtype.itemsize:
            raise ValueError(f"shape {shape} of {dtype} needs more bytes than there are")
        flat = np.frombuffer(body, dtype=dtype)
        return flat.reshape(shape, order="F" if fortran else "C")
    except (*BROKEN_FILE, SyntaxError, tokenize.TokenError, MemoryError) as error:
        raise _unreadable(where, error) from None


def _unreadable(where: str, error: BaseException) -> InputError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError("E-INPUT-UNREADABLE", f"cannot be read: {reason}", where=where)
