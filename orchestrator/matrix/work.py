"""How much a plan asks for, from file headers alone (standard library only)."""

from __future__ import annotations

import ast
import csv
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.conditions import parse
from orchestrator.errors import InputError
from orchestrator.matrix.model import (
    CsvInputs,
    ImageInputs,
    InputSpec,
    Matrix,
    NpyInputs,
    NpzInputs,
)
from orchestrator.matrix.plan import Cell

BROKEN_FILE = (
    OSError,
    EOFError,
    ValueError,  # undecodable names and text
    RuntimeError,  # encrypted
    NotImplementedError,  # unknown compression
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    csv.Error,
)
"""What the standard library raises on damaged archives and tables."""
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm"})
_HEADER_LIMIT = 1 << 16


@dataclass(frozen=True)
class Work:
    """``samples``: input set → samples; ``inferences``: cell ID → model runs, warm-up aside.

    A soak's are its first pass alone: how often it goes on is for the device's heat to say.
    """

    samples: dict[str, int]
    inferences: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.inferences.values())


def total_work(matrix: Matrix, cells: Sequence[Cell]) -> Work:
    """Samples × repeats of every cell. Raises InputError, see `count_samples`."""
    used = {c.inputs for c in cells}
    samples = {s.name: count_samples(s) for s in matrix.inputs if s.name in used}
    first = matrix.repeat_samples
    return Work(
        samples, {c.id: parse(c.condition).inferences(samples[c.inputs], first) for c in cells}
    )


def count_samples(spec: InputSpec) -> int:
    """Samples that the input set will give, its limit applied.

    Raises InputError E-INPUT-UNREADABLE, E-INPUT-ARRAY (no such array in an .npz).
    """
    try:
        if isinstance(spec, NpzInputs):
            count = _npz(spec.path, spec.array)
        elif isinstance(spec, NpyInputs):
            with spec.path.open("rb") as file:
                count = npy_shape(file, str(spec.path))[0]
        elif isinstance(spec, CsvInputs):
            count = _rows(spec.path)
        elif spec.labels:
            count = _rows(spec.labels)
        else:
            count = len(image_files(spec))
    except BROKEN_FILE as error:
        raise InputError(
            "E-INPUT-UNREADABLE", f"cannot be read: {error}", where=str(spec.path)
        ) from None
    return count if spec.limit is None else min(count, spec.limit)


def image_files(spec: ImageInputs) -> list[Path]:
    """The pictures of a folder, sorted by their path; with class folders, those one below."""
    pattern = "*/*" if spec.class_folders else "*"
    return sorted(p for p in spec.path.glob(pattern) if p.suffix.lower() in IMAGE_SUFFIXES)


def npy_shape(file: IO[bytes], where: str) -> tuple[int, ...]:
    """Shape from the header of a .npy; a scalar counts as no array.

    Format: numpy.lib.format, versions 1 to 3 (2 or 4 bytes of length, then a dict literal).
    """
    magic = file.read(8)
    wide = magic[6:7] in (b"\2", b"\3")
    length = int.from_bytes(file.read(4 if wide else 2), "little")
    try:
        if magic[:6] != b"\x93NUMPY" or not 0 < length <= _HEADER_LIMIT:
            raise ValueError("no .npy header")
        header = ast.literal_eval(file.read(length).decode("utf-8" if wide else "latin1"))
        shape = tuple(int(n) for n in header["shape"])
        if not shape:
            raise ValueError("a single number, not an array of samples")
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise InputError("E-INPUT-UNREADABLE", f"not a .npy array: {error}", where=where) from None
    return shape


def _npz(path: Path, array: str) -> int:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if f"{array}.npy" not in names:
            known = ", ".join(sorted(n.removesuffix(".npy") for n in names))
            raise InputError(
                "E-INPUT-ARRAY",
                f"there is no array {array!r}",
                where=str(path),
                fix=f"it has {known or 'none'}",
            )
        with archive.open(f"{array}.npy") as file:
            return npy_shape(file, f"{path}[{array}]")[0]


def _rows(path: Path) -> int:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return max(sum(1 for row in csv.reader(file) if row) - 1, 0)
