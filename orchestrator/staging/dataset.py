"""Input sets from files: real values, labels and slices, refused rather than guessed at.

Nothing is unpickled, nothing is scaled; `orchestrator.staging.prepare` makes what a model takes.
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
from orchestrator.matrix.model import CsvInputs, InputSpec, NpyInputs, NpzInputs
from orchestrator.matrix.work import BROKEN_FILE
from orchestrator.staging import images, tables

Array = NDArray[Any]

MAX_ARRAY_BYTES = 8 << 30
"""Largest array, unpacked, that is read: a small zip can claim to hold anything."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """An input set in memory.

    ``x`` [n, ...] numbers without NaN or infinity, n >= 1; ``labels`` [n, ...] or None; ``slices``
    name → [n].
    """

    x: Array
    labels: Array | None
    slices: Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class _Read:
    """As many samples as were asked for, of an array of this ``shape``."""

    values: Array
    shape: tuple[int, ...]


def load(spec: InputSpec) -> Dataset:
    """Read an input set; no sample beyond its ``limit`` is kept in memory or looked at.

    Raises InputError E-INPUT-UNREADABLE (damaged or missing file), E-INPUT-ARRAY (no such array or
    column), E-INPUT-PICKLE (Python objects inside), E-INPUT-DTYPE (not numbers), E-INPUT-NAN,
    E-INPUT-EMPTY, E-INPUT-LABELS and E-INPUT-SLICES (another length), E-INPUT-SHAPE,
    E-INPUT-SIZE, E-INPUT-PILLOW.
    """
    where = str(spec.path)
    if isinstance(spec, NpzInputs):
        x, labels, slices = _npz(spec)
    elif isinstance(spec, NpyInputs):
        x, slices = _npy(spec.path, spec.limit), {}
        labels = None if spec.labels is None else _npy(spec.labels, spec.limit)
    elif isinstance(spec, CsvInputs):
        x, labels, slices = _whole(*tables.read(spec))
    else:
        x, labels, slices = _whole(*images.read(spec), {})
    _check_x(x.values, where)
    if labels is not None:
        _check_labels(labels, x.shape[0], where)
    for name, found in slices.items():
        if found.shape != x.shape[:1]:
            raise InputError(
                "E-INPUT-SLICES",
                f"slice {name!r} has shape {found.shape}, there are {x.shape[0]} samples",
                where=where,
            )
    return Dataset(
        np.ascontiguousarray(x.values),
        None if labels is None else labels.values,
        {name: found.values for name, found in slices.items()},
    )


def _whole(
    x: Array, labels: Array | None, slices: Mapping[str, Array]
) -> tuple[_Read, _Read | None, dict[str, _Read]]:
    """Of what was read within the limit."""
    read = {name: _Read(values, values.shape) for name, values in slices.items()}
    return _Read(x, x.shape), None if labels is None else _Read(labels, labels.shape), read


def _check_x(x: Array, where: str) -> None:
    if x.dtype.kind not in "fiub":
        raise InputError("E-INPUT-DTYPE", f"samples are {x.dtype}, not numbers", where=where)
    if x.ndim == 0 or x.size == 0:
        raise InputError("E-INPUT-EMPTY", f"no samples: the shape is {x.shape}", where=where)
    _check_finite(x, "sample", where)


def _check_labels(labels: _Read, count: int, where: str) -> None:
    values = labels.values
    if values.dtype.kind not in "fiub":
        raise InputError(
            "E-INPUT-DTYPE",
            f"labels are {values.dtype}, not numbers",
            where=where,
            fix="give class numbers; their names belong to the model's task",
        )
    if labels.shape[:1] != (count,):
        raise InputError(
            "E-INPUT-LABELS", f"labels have shape {labels.shape}, {count} samples", where=where
        )
    _check_finite(values, "label of sample", where)


def _check_finite(values: Array, what: str, where: str) -> None:
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        raise InputError(
            "E-INPUT-NAN",
            f"{what} {int(bad.argmax())} (and {int(bad.sum()) - 1} more) holds NaN or infinity",
            where=where,
        )


def _npz(spec: NpzInputs) -> tuple[_Read, _Read | None, dict[str, _Read]]:
    wanted = [spec.array, *([spec.labels] if spec.labels else []), *spec.slices]
    arrays: dict[str, _Read] = {}
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
                        fix=f"it has {known or 'none'}",
                    )
                size = archive.getinfo(member).file_size
                with archive.open(member) as file:
                    arrays[name] = _array(file, size, f"{spec.path}[{name}]", spec.limit)
    except BROKEN_FILE as error:
        raise _unreadable(str(spec.path), error) from None
    return (
        arrays[spec.array],
        arrays[spec.labels] if spec.labels else None,
        {name: arrays[name] for name in spec.slices},
    )


def _npy(path: Path, limit: int | None) -> _Read:
    try:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size, str(path), limit)
    except OSError as error:
        raise _unreadable(str(path), error) from None


def _array(file: Any, size: int, where: str, limit: int | None) -> _Read:
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
                fix="save it as an array of numbers",
            )
        total = dtype.itemsize
        for n in shape:  # Python integers: a hostile header must not overflow
            total *= n
        if total > size or min(shape, default=0) < 0:
            raise ValueError(f"shape {shape} of {dtype} needs more bytes than there are")
        kept = shape
        if limit is not None and shape and shape[0] > limit and not fortran:
            kept = (limit, *shape[1:])
            total = total // shape[0] * limit
        if total > MAX_ARRAY_BYTES:
            raise InputError(
                "E-INPUT-SIZE",
                f"{total} bytes, more than {MAX_ARRAY_BYTES} are not read",
                where=where,
                fix="set `limit` to fewer samples",
            )
        body = file.read(total)
        if len(body) != total:
            raise ValueError(f"shape {shape} of {dtype} needs more bytes than there are")
        values = np.frombuffer(body, dtype=dtype).reshape(kept, order="F" if fortran else "C")
        return _Read(values[:limit] if kept else values, shape)
    except (*BROKEN_FILE, SyntaxError, tokenize.TokenError, MemoryError) as error:
        raise _unreadable(where, error) from None


def _unreadable(where: str, error: BaseException) -> InputError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError("E-INPUT-UNREADABLE", f"cannot be read: {reason}", where=where)
