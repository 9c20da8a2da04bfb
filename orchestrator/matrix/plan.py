"""Matrix × inventory → cells. Pure: reads no file, asks no device.

A cell's ID is ``{slot}-{model}.{file}-{inputs}-{condition}-{runtime}``. A slot is a unit's name
when it was selected by name, else its class, with ``#2``, ``#3`` … for further units. Two slots
of one class need two different units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from orchestrator.errors import InputError
from orchestrator.matrix.fields import matches
from orchestrator.matrix.inventory import Device, Inventory
from orchestrator.matrix.model import FORMATS, DeviceSelect, Matrix


@dataclass(frozen=True)
class Slot:
    """A place for one device. ``candidates``: names of the units that may take it."""

    name: str
    device_class: str
    candidates: tuple[str, ...]

    @property
    def base(self) -> str:
        """The name without its number."""
        return self.name.partition("#")[0]


@dataclass(frozen=True)
class Cell:
    """The unit of scheduling; every field but the ID and the candidates is a name."""

    id: str
    slot: str
    candidates: tuple[str, ...]
    model: str
    file: str
    inputs: str
    condition: str
    runtime: str

    def under(self, condition: str) -> Cell:
        """The same cell under another condition."""
        id = cell_id(self.slot, self.model, self.file, self.inputs, condition, self.runtime)
        return replace(self, id=id, condition=condition)


def cell_id(slot: str, model: str, file: str, inputs: str, condition: str, runtime: str) -> str:
    return f"{slot}-{model}.{file}-{inputs}-{condition}-{runtime}"


@dataclass(frozen=True)
class Plan:
    slots: tuple[Slot, ...]
    cells: tuple[Cell, ...]

    def cell(self, id: str) -> Cell:
        return next(c for c in self.cells if c.id == id)


def expand(matrix: Matrix, inventory: Inventory) -> Plan:
    """Every cell, in the order of the file; cells of one slot and one runtime are neighbours.

    Raises InputError E-SELECT-EMPTY (no cell at all), E-SELECT-DEVICE (a selector that the
    inventory cannot fill), E-MATRIX-DUPLICATE (two cells with one ID).
    """
    slots = tuple(slot for select in matrix.devices for slot in _slots(select, inventory.devices))
    cells = tuple(_cells(matrix, slots))
    if not cells:
        raise InputError(
            "E-SELECT-EMPTY",
            f"matrix {matrix.name!r} has no cell: no runtime fits any model file and device",
            fix="onnxruntime runs .onnx, litert and tflite-runtime run .tflite; "
            "look at the runtimes' devices and files globs",
        )
    id, count = Counter(c.id for c in cells).most_common(1)[0]
    if count > 1:
        raise InputError(
            "E-MATRIX-DUPLICATE",
            f"two cells have the ID {id!r}",
            fix="select each device once, and rename what makes the names run together",
        )
    return Plan(slots, cells)


def select(cells: Sequence[Cell], patterns: Iterable[str]) -> tuple[Cell, ...]:
    """The cells whose ID, with or without ``#n``, matches any pattern; order is kept.

    A pattern beginning with ``!`` takes cells away, last; only such patterns start from all
    cells, and no pattern means all. Raises InputError E-SELECT-EMPTY when nothing is left.
    """
    wanted = list(patterns)
    take = [p for p in wanted if not p.startswith("!")] or ["*"]
    drop = [p[1:] for p in wanted if p.startswith("!")]
    chosen = tuple(c for c in cells if _fits(c, take) and not _fits(c, drop))
    if not chosen:
        example = f"; the first ID is {cells[0].id!r}" if cells else ""
        raise InputError(
            "E-SELECT-EMPTY",
            f"no cell matches {' '.join(wanted) or '(no pattern)'!r}{example}",
            fix="patterns match whole IDs: try a * before and after",
        )
    return chosen


def _fits(cell: Cell, patterns: Sequence[str]) -> bool:
    plain = cell.slot.partition("#")[0] + cell.id.removeprefix(cell.slot)
    return any(fnmatchcase(id, p) for id in (cell.id, plain) for p in patterns)


def _cells(matrix: Matrix, slots: Sequence[Slot]) -> Iterator[Cell]:
    for slot in slots:
        for runtime in matrix.runtimes:
            if not matches(runtime.devices, slot.name, slot.base, slot.device_class):
                continue
            for model in matrix.models:
                for file in model.files:
                    if runtime.runtime not in FORMATS[file.format]:
                        continue
                    if not matches(runtime.files, file.name, f"{model.name}.{file.name}"):
                        continue
                    for inputs in model.inputs:
                        for condition in matrix.conditions:
                            names = (model.name, file.name, inputs, condition, runtime.name)
                            id = cell_id(slot.name, *names)
                            yield Cell(id, slot.name, slot.candidates, *names)


def _slots(select: DeviceSelect, devices: Sequence[Device]) -> Iterator[Slot]:
    if select.class_ is not None:
        yield from _of_classes(select.class_, select.count or 1, devices)
        return
    if select.name is not None:
        kind, value = "name", select.name
        found = [d for d in devices if fnmatchcase(d.name, value)]
    else:
        kind, value = "tag", str(select.tag)
        found = [d for d in devices if any(fnmatchcase(t, value) for t in d.tags)]
    count = select.count or len(found)
    if not found or len(found) < count:
        raise _unfilled(kind, value, count, len(found), devices)
    if kind == "name":
        for device in found[:count]:
            yield Slot(device.name, device.class_, (device.name,))
        return
    # Of a tag the first `count` units say how many slots each class gets.
    for name, number in Counter(d.class_ for d in found[:count]).items():
        yield from _numbered(name, number, found)


def _of_classes(glob: str, count: int, devices: Sequence[Device]) -> Iterator[Slot]:
    """``count`` slots of every class that fits: a class that is too small hides behind no other."""
    classes = dict.fromkeys(d.class_ for d in devices if fnmatchcase(d.class_, glob))
    if not classes:
        raise _unfilled("class", glob, count, 0, devices)
    for name in classes:
        units = [d for d in devices if d.class_ == name]
        if len(units) < count:
            raise _unfilled("class", name, count, len(units), devices)
        yield from _numbered(name, count, units)


def _numbered(name: str, count: int, devices: Sequence[Device]) -> Iterator[Slot]:
    units = tuple(d.name for d in devices if d.class_ == name)
    for i in range(1, count + 1):
        yield Slot(name if i == 1 else f"{name}#{i}", name, units)


def _unfilled(
    kind: str, value: str, wanted: int, found: int, devices: Sequence[Device]
) -> InputError:
    if kind == "name":
        known = {d.name for d in devices}
    elif kind == "tag":
        known = {t for d in devices for t in d.tags}
    else:
        known = {d.class_ for d in devices}
    what = f"only {found} of {wanted} devices have" if found else "no device has"
    return InputError(
        "E-SELECT-DEVICE",
        f"{what} the {kind} {value!r}",
        fix=f"the inventory has {kind}: {', '.join(sorted(known)) or 'none'}",
    )
