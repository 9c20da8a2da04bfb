"""Input sets from a folder of pictures. Pillow is optional and imported only here."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.matrix.files import open_file
from orchestrator.matrix.model import ImageInputs
from orchestrator.matrix.work import image_files
from orchestrator.staging.tables import table


def read(spec: ImageInputs) -> tuple[NDArray[np.uint8], NDArray[Any] | None]:
    """x uint8 RGB [n, height, width, 3] and labels.

    Decoded once, here: devices get tensors, so decoders cannot differ between them. Raises
    InputError E-INPUT-PILLOW, E-INPUT-EMPTY, E-INPUT-PATH, E-INPUT-UNREADABLE.
    """
    paths, labels = _listed(spec)
    if not paths:
        raise InputError("E-INPUT-EMPTY", "no pictures here", where=str(spec.path))
    pillow = _pillow(spec.path)
    if spec.limit is not None:
        paths, labels = paths[: spec.limit], None if labels is None else labels[: spec.limit]
    return np.stack([_picture(pillow, path, spec.size) for path in paths]), labels


def _listed(spec: ImageInputs) -> tuple[list[Path], NDArray[Any] | None]:
    if spec.labels is not None:
        data = table(spec.labels)
        names = data.column(spec.file_column)
        for name, line in zip(names, data.lines, strict=True):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise InputError(
                    "E-INPUT-PATH",
                    f"{name!r:.80} leads out of {spec.path}",
                    where=f"{spec.labels}:{line}",
                )
        return [spec.path / name for name in names], data.labels(spec.label_column)
    paths = image_files(spec)
    if not spec.class_folders:
        return paths, None
    classes = sorted({p.parent.name for p in paths})
    return paths, np.array([classes.index(p.parent.name) for p in paths], dtype=np.int64)


def _pillow(path: Path) -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        raise InputError(
            "E-INPUT-PILLOW",
            "reading pictures needs Pillow, which is not installed",
            where=str(path),
            fix="pip install pillow (the extra `images` here), or store the pictures in an .npz",
        ) from None


def _picture(pillow: Any, path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with open_file(path) as data, pillow.open(data) as file:
                picture = file.convert("RGB")
        if picture.size != (width, height):
            picture = picture.resize((width, height), pillow.Resampling.BILINEAR)
        return np.asarray(picture, dtype=np.uint8)
    except (
        OSError,
        ValueError,
        SyntaxError,  # Pillow's word for a broken PNG
        pillow.DecompressionBombError,
        pillow.DecompressionBombWarning,
    ) as error:
        raise InputError(
            "E-INPUT-UNREADABLE", f"not a usable picture: {error}", where=str(path)
        ) from None
