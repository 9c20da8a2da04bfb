"""From the path of a matrix file to everything it says, checked against what is on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.matrix import yamlfile
from orchestrator.matrix.device_class import GENERIC, DeviceClass, class_names, load_class
from orchestrator.matrix.files import MAX_INPUT, MAX_MODEL, open_file, unusable
from orchestrator.matrix.inventory import Device, Inventory, default_python
from orchestrator.matrix.model import ImageInputs, Matrix, NpyInputs, Parent
from orchestrator.transports.settings import AdbSettings

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Loaded:
    """``path``: the matrix file. The policy's path is ``matrix.policy``; signoff reads it.

    ``where``: an entry's place in the file, as "file:line".
    """

    path: Path
    matrix: Matrix
    inventory: Inventory
    where: Callable[[yamlfile.Loc], str]


def load_matrix(path: Path) -> Loaded:
    """Read a matrix and its inventories and check that every file it names is there.

    Raises InputError: what `yamlfile.read` and `parse` raise, E-MODEL-MISSING, E-MODEL-SHA256,
    E-INPUT-MISSING, E-POLICY-MISSING, and E-MATRIX-DUPLICATE for a device named in two
    inventories.
    """
    document = yamlfile.read(path)
    matrix = document.parse(Matrix)
    inventory = load_inventories(matrix.inventory, where=document.where(("inventory",)))
    _check_files(document, matrix)
    return Loaded(path, matrix, inventory, document.where)


def load_inventories(paths: tuple[Path, ...], *, where: str | None = None) -> Inventory:
    """All devices of several inventory files. ``where`` says who names them, for errors.

    Raises InputError as `load_matrix`; E-INVENTORY-MISSING, E-CLASS-…; E-MATRIX-DUPLICATE also for
    two entries that are one adb device, E-MATRIX-KEY for an ``identity`` that is no fact.
    """
    devices: dict[str, Device] = {}
    origin: dict[str, str] = {}
    for path in paths:
        if not path.is_file():
            what = _absent("inventory", path)
            raise InputError("E-INVENTORY-MISSING", what, where=where)
        document = yamlfile.read(path)
        folders = (path.parent / "classes",)
        for i, device in enumerate(document.parse(Inventory).devices):
            here = document.where(("devices", i, "name"))
            if device.name in devices:
                raise InputError(
                    "E-MATRIX-DUPLICATE",
                    f"device {device.name!r} is already named at {origin[device.name]}",
                    where=here,
                    fix="rename one of them",
                )
            profile = _profile(document, i, device, folders)
            _check_identity(document, i, device, profile)
            _check_serial(document, i, device, devices.values(), origin)
            devices[device.name] = device.model_copy(
                update={"profile": profile, "python": _pythons(device, profile)}
            )
            origin[device.name] = here
    return Inventory.model_construct(version=1, devices=tuple(devices.values()))


def _profile(
    document: yamlfile.Document, i: int, device: Device, folders: tuple[Path, ...]
) -> DeviceClass:
    """The class that describes a device: the one it is like, its own, or the generic one."""
    found = load_class(device.like or device.class_, folders)
    if found is None and device.like:
        raise InputError(
            "E-CLASS-UNKNOWN",
            f"there is no device class {device.like!r}",
            where=document.where(("devices", i, "like")),
            fix=f"known: {', '.join(class_names(folders))}",
        )
    found = found or load_class(GENERIC)
    assert found is not None, "the generic class is part of the product"
    return found


def _pythons(device: Device, profile: DeviceClass) -> dict[str, str]:
    """As the device's entry says, else its class: the hermetic bundle, or its system's."""
    if "python" in device.model_fields_set:
        return device.python
    return {"default": default_python(profile)}


def _check_identity(
    document: yamlfile.Document, i: int, device: Device, profile: DeviceClass
) -> None:
    """A fact that its class never asks for would be missed on every run."""
    known = profile.told()
    for name in device.identity:
        if name not in known:
            raise InputError(
                "E-MATRIX-KEY",
                f"{name!r:.40} is no fact that a device of the class {profile.name} tells",
                where=document.where(("devices", i, "identity", name)),
                fix=f"one of {', '.join(sorted(known))}" if known else "leave it out",
            )


def _check_serial(
    document: yamlfile.Document,
    i: int,
    device: Device,
    others: Iterable[Device],
    origin: Mapping[str, str],
) -> None:
    """Two entries that one phone would answer to."""
    mine = device.transport
    if not isinstance(mine, AdbSettings):
        return
    for other in others:
        theirs = other.transport
        if (
            isinstance(theirs, AdbSettings)
            and (theirs.serial, theirs.server_port) == (mine.serial, mine.server_port)
            and other.hub == device.hub
            and (None in (theirs.usb, mine.usb) or theirs.usb == mine.usb)
        ):
            raise InputError(
                "E-MATRIX-DUPLICATE",
                f"{device.name} has the adb serial {mine.serial} of {other.name} at"
                f" {origin[other.name]}, and no `usb` tells them apart",
                where=document.where(("devices", i, "transport", "serial")),
                fix="give each the `usb` that `assay devices scan --adb` shows, or remove one",
            )


def _check_files(document: yamlfile.Document, matrix: Matrix) -> None:
    for i, model in enumerate(matrix.models):
        for j, file in enumerate(model.files):
            _check_model(document, file, ("models", i, "files", j))
        for field, parent in model.parents.items():
            _check_model(document, parent, ("models", i, field))
    for i, spec in enumerate(matrix.inputs):
        folder = isinstance(spec, ImageInputs)
        _check_input(document, spec.path, ("inputs", i, "path"), folder)
        if isinstance(spec, NpyInputs | ImageInputs) and spec.labels:
            _check_input(document, spec.labels, ("inputs", i, "labels"), False)
    if matrix.policy and not matrix.policy.is_file():
        raise InputError(
            "E-POLICY-MISSING",
            _absent("policy", matrix.policy),
            where=document.where(("policy",)),
        )


def _check_model(document: yamlfile.Document, file: Parent, loc: yamlfile.Loc) -> None:
    if not file.path.is_file():
        raise InputError(
            "E-MODEL-MISSING",
            _absent("model file", file.path),
            where=document.where((*loc, "path")),
        )
    if why := unusable(file.path, MAX_MODEL):
        what = f"{file.path} has {why}: no model is that large in one file"
        raise InputError("E-MODEL-UNREADABLE", what, where=document.where((*loc, "path")))
    if file.sha256 and (actual := sha256_file(file.path)) != file.sha256:
        raise InputError(
            "E-MODEL-SHA256",
            f"{file.path} has sha256 {actual}, the matrix demands {file.sha256}",
            where=document.where((*loc, "sha256")),
            fix="restore that file, or accept the new one by its sha256",
        )


def _check_input(document: yamlfile.Document, path: Path, loc: yamlfile.Loc, folder: bool) -> None:
    if not (path.is_dir() if folder else path.is_file()):
        kind = "input folder" if folder else "input file"
        what = f"{path} is a file, not a folder" if path.is_file() else _absent(kind, path)
        raise InputError("E-INPUT-MISSING", what, where=document.where(loc))
    if not folder and (why := unusable(path, MAX_INPUT)):
        raise InputError("E-INPUT-SIZE", f"{path} has {why}", where=document.where(loc))


def _absent(kind: str, path: Path) -> str:
    why = unusable(path)
    return f"{kind} {path} is {why}" if why else f"there is no {kind} {path}"


def sha256_file(path: Path) -> str:
    """sha256 hex of a file's bytes. Raises InputError E-FILE-READ."""
    digest = hashlib.sha256()
    try:
        with open_file(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(
            "E-FILE-READ", f"cannot be read: {error.strerror}", where=str(path)
        ) from None
    return digest.hexdigest()


def sha256_path(path: Path) -> str:
    """sha256 of a file, or of a folder: over each file's relative path and sha256, sorted."""
    if not path.is_dir():
        return sha256_file(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{sha256_file(file)}  {file.relative_to(path).as_posix()}\n".encode())
    return digest.hexdigest()
