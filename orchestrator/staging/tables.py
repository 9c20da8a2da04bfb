"""Input sets and label lists in CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.matrix.model import CsvInputs


@dataclass(frozen=True)
class Table:
    """A CSV with a header: ``rows`` of equal length and the line each ends on."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """Raises InputError E-INPUT-ARRAY."""
        if name not in self.header:
            raise InputError(
                "E-INPUT-ARRAY",
                f"there is no column {name!r}",
                where=f"{self.path}:1",
                fix=f"it has {', '.join(self.header)}",
            )
        at = self.header.index(name)
        return [row[at] for row in self.rows]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Raises InputError E-INPUT-DTYPE with the line of the first cell that is no number."""
        values = np.empty(len(self.rows))
        for i, (text, line) in enumerate(zip(self.column(name), self.lines, strict=True)):
            try:
                values[i] = float(text)
            except ValueError:
                raise InputError(
                    "E-INPUT-DTYPE",
                    f"column {name!r}: {text[:40]!r} is not a number",
                    where=f"{self.path}:{line}",
                ) from None
        return values

    def labels(self, name: str) -> NDArray[Any]:
        """int64 where every label is a whole number, else float64."""
        values = self.numbers(name)
        whole = np.isfinite(values).all() and (np.abs(values) < 2**53).all()
        if whole and (values == np.rint(values)).all():
            return values.astype(np.int64)
        return values


def table(path: Path, limit: int | None = None) -> Table:
    """Read a CSV, no further than ``limit`` rows below its header.

    Raises InputError E-INPUT-UNREADABLE, E-INPUT-SHAPE (ragged rows).
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if limit is not None and len(rows) > limit:
                    break
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            "E-INPUT-UNREADABLE", f"cannot be read: {error}", where=str(path)
        ) from None
    if not rows:
        raise InputError("E-INPUT-EMPTY", "the table has no header", where=str(path))
    header = rows[0]
    if len(set(header)) != len(header):
        raise InputError("E-INPUT-ARRAY", "two columns have one name", where=f"{path}:1")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise InputError(
                "E-INPUT-SHAPE",
                f"{len(row)} cells in this row, {len(header)} columns",
                where=f"{path}:{line}",
            )
    return Table(path, header, rows[1:], lines[1:])


def read(
    spec: CsvInputs,
) -> tuple[NDArray[np.float32], NDArray[Any] | None, Mapping[str, NDArray[Any]]]:
    """x float32 [n, *shape] (default [n, columns]), labels, slices (text, as written)."""
    data = table(spec.path, spec.limit)
    columns = _columns(spec, data.header)
    shape = spec.shape or (len(columns),)
    if prod(shape) != len(columns):
        raise InputError(
            "E-INPUT-SHAPE",
            f"{len(columns)} columns cannot have the shape {list(shape)}",
            where=str(spec.path),
        )
    x = np.empty((len(data.rows), len(columns)), dtype=np.float32)
    for i, name in enumerate(columns):
        with np.errstate(over="ignore"):  # becomes infinity, which is refused with its sample
            x[:, i] = data.numbers(name)
    labels = data.labels(spec.label) if spec.label else None
    slices = {name: np.array(data.column(name), dtype=np.str_) for name in spec.slices}
    return x.reshape(len(x), *shape), labels, slices


def _columns(spec: CsvInputs, header: Sequence[str]) -> list[str]:
    if spec.columns is not None:
        return list(spec.columns)
    apart = {spec.label, *spec.slices}
    return [name for name in header if name not in apart]
