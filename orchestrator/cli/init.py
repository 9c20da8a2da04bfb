"""`assay init`: a first matrix, inventory and policy from a model file and its inputs."""

from __future__ import annotations

import csv
import math
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import AsJson, print_json, print_text
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.matrix.starter import Inputs, Model

_INIT = """Write a first matrix, inventory and policy for a model.

MODEL: INT8 files of one network. Nothing that exists is overwritten. Guesses are marked; read the
three files before you trust a verdict.

Example: assay init net.int8.onnx --fp32 net.fp32.onnx --inputs samples.npz
"""

NAMES = ("matrix.yaml", "inventory.yaml", "policy.yaml")
_LABELS = ("y", "label", "labels", "target", "class")


def register(app: typer.Typer) -> None:
    app.command(help=_INIT, rich_help_panel="Run")(init)


def init(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help=".onnx or .tflite files.")
    ],
    inputs: Annotated[
        Path,
        typer.Option(
            "--inputs", "-i", metavar="FILE", help=".npz, .npy, .csv or a folder of pictures."
        ),
    ],
    fp32: Annotated[
        Path | None, typer.Option("--fp32", metavar="FILE", help="What they were quantised from.")
    ] = None,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Where the three files go.")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    from orchestrator.matrix import starter

    targets = [folder / name for name in NAMES]
    if there := next((path for path in targets if path.exists()), None):
        raise InputError(
            "E-INIT-EXISTS", "exists already", where=str(there), fix="move it away, or --folder DIR"
        )
    files = [_model(path, folder) for path in models]
    parent = _model(fp32, folder) if fp32 else None
    given = _inputs(inputs, folder, files[0])
    texts = (
        starter.matrix(files, parent, given),
        starter.inventory(),
        starter.policy(files, parent, given),
    )
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(targets, texts, strict=True):
            with path.open("x", encoding="utf-8") as file:
                made.append(path)
                file.write(text)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise InputError(
            "E-INIT-WRITE", f"cannot be written: {error.strerror}", where=str(folder)
        ) from None
    if as_json:
        print_json({"schema": "assay.init/1", "written": [str(path) for path in targets]})
        return
    for path in targets:
        print_text(str(path))
    print_text(f"Next: assay plan {targets[0]}, then assay run {targets[0]}")


def _model(path: Path, folder: Path) -> Model:
    """Raises InputError E-MODEL-*."""
    from orchestrator.matrix.starter import RUNTIMES, Model
    from orchestrator.models.inspect import inspect

    format = path.suffix.lower().lstrip(".")
    if format not in RUNTIMES:
        raise InputError(
            "E-MODEL-FORMAT",
            f"{path.name!r} has no known model format",
            fix="a file ending in .onnx or .tflite",
        )
    info = inspect(path)
    takes, gives = (t[0].shape[1:] if t else () for t in (info.inputs, info.outputs))
    return Model(_relative(path, folder), info.format, takes, gives)


def _relative(path: Path, folder: Path) -> str:
    """As a file in ``folder`` names it."""
    return os.path.relpath(path.absolute(), folder.absolute())


def _inputs(path: Path, folder: Path, model: Model) -> Inputs:
    """Raises InputError E-INPUT-*."""
    from orchestrator.matrix.starter import Inputs
    from orchestrator.matrix.work import BROKEN_FILE, npy_shape

    named = _relative(path, folder)
    try:
        if path.is_dir():
            return _pictures(path, named, model)
        match path.suffix.lower():
            case ".npz":
                return _npz(path, named)
            case ".npy":
                with path.open("rb") as file:
                    shape = npy_shape(file, str(path))
                return Inputs({"type": "npy", "path": named}, shape[1:], False)
            case ".csv":
                return _table(path, named, model)
    except BROKEN_FILE as error:
        raise InputError(
            "E-INPUT-UNREADABLE", f"cannot be read: {error}", where=str(path)
        ) from None
    raise InputError(
        "E-INPUT-UNREADABLE",
        "no known form of inputs",
        where=str(path),
        fix=".npz, .npy, .csv or a folder of pictures",
    )


def _npz(path: Path, named: str) -> Inputs:
    """``x``, or the largest array; ``y``, or another one with a number for each sample."""
    from orchestrator.matrix.starter import Inputs
    from orchestrator.matrix.work import npy_shape

    shapes: dict[str, tuple[int, ...]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    shapes[name.removesuffix(".npy")] = npy_shape(file, f"{path}[{name}]")
    samples = {n: s for n, s in shapes.items() if len(s) > 1} or shapes
    if not samples:
        raise InputError("E-INPUT-ARRAY", "there is no array in it", where=str(path))
    array = "x" if "x" in samples else max(samples, key=lambda n: math.prod(samples[n]))
    count = samples[array][:1]
    flat = [n for n, s in shapes.items() if n != array and s == count]
    labels = next((n for n in _LABELS if n in flat), flat[0] if len(flat) == 1 else None)
    entry: dict[str, object] = {"type": "npz", "path": named, "array": array}
    if labels:
        entry["labels"] = labels
    return Inputs(entry, samples[array][1:], labels is not None)


def _table(path: Path, named: str, model: Model) -> Inputs:
    from orchestrator.matrix.starter import Inputs

    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
    label = next((n for n in header if n.lower() in _LABELS), None)
    entry: dict[str, object] = {"type": "csv", "path": named}
    if label:
        entry["label"] = label
    if len(model.takes) > 1 and -1 not in model.takes:
        entry["shape"] = list(model.takes)
        return Inputs(entry, model.takes, label is not None)
    return Inputs(entry, (len(header) - (label is not None),), label is not None)


def _pictures(path: Path, named: str, model: Model) -> Inputs:
    from orchestrator.matrix.starter import Inputs
    from orchestrator.matrix.work import IMAGE_SUFFIXES

    if not any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.rglob("*")):
        raise InputError(
            "E-INPUT-UNREADABLE", "no pictures in this folder", where=str(path), fix="PNG or JPEG"
        )
    if len(model.takes) != 3 or -1 in model.takes:
        raise InputError(
            "E-INPUT-SHAPE",
            f"a picture does not fit a model that takes {list(model.takes)}",
            where=str(path),
        )
    last = model.takes[2] in (1, 3)
    height, width = model.takes[:2] if last else model.takes[1:]
    entry: dict[str, object] = {"type": "images", "path": named, "size": [height, width]}
    if any(p.is_dir() for p in path.iterdir()):
        entry["class_folders"] = True
    return Inputs(entry, (height, width, 3), "class_folders" in entry)
