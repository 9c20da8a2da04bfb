"""One representative of an equivalence class in full, the others by spot checks. Pure.

What a class shares is arithmetic, so only ``clean`` cells can be stood in for: whether a unit
repeats itself, gets hot or throttles is its own affair, and those cells stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from orchestrator.conditions import CLEAN, Draw
from orchestrator.conditions.kinds import spot
from orchestrator.matrix.key import Key
from orchestrator.matrix.plan import Cell

T = TypeVar("T")


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Member(_Kept):
    """``full``: ID of the cell over all samples, ``spot``: of the one over those drawn."""

    slot: str
    full: str
    spot: str


class Group(_Kept):
    """Members of one class that one cell could answer for; the first is planned in full.

    ``fingerprint``: the sha256 they share. ``version``: of the runtime it was taken of. ``keys``:
    unit -> what its own was taken on.
    """

    fingerprint: str
    version: str | None
    members: tuple[Member, ...]
    keys: Mapping[str, Key] = {}


class ByClass(_Kept):
    """An audit by class, as a run keeps it.

    A spot check sees a difference in at least ``share`` of the samples with probability
    ``confidence``.
    """

    confidence: float
    share: float
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Kind:
    """What devices of one class have in common; emulated and real ones have nothing.

    ``keys``: as ``Group.keys``, of the units that may take the cell; they may differ.
    """

    fingerprint: str
    version: str | None
    emulated: bool
    keys: Mapping[str, Key] = field(default_factory=dict, compare=False)


def house(homes: list[list[T]], one: T, apart: Callable[[T, T], bool]) -> None:
    """Add ``one`` to the first of ``homes`` that holds nobody apart from it, else to a new one."""
    for home in homes:
        if not any(apart(one, other) for other in home):
            home.append(one)
            return
    homes.append([one])


def group(
    cells: Sequence[Cell],
    kind_of: Callable[[Cell], Kind | None],
    apart: Callable[[Cell, Cell], bool],
    rank: Callable[[Cell], int],
    samples: Callable[[str], int],
    size: Callable[[int], int],
    seed: int,
) -> tuple[tuple[Cell, ...], tuple[Group, ...]]:
    """The cells to run, in the order given, and the groups among them.

    ``kind_of``: None where it is not known, which leaves a cell as it is. ``apart``: two of one
    kind that have answered differently before. The lowest ``rank`` represents, of equals the first.
    ``samples``: of an input set; ``size``: of a spot check of so many, all of them for none.
    """
    classes: dict[tuple[Kind, tuple[str, ...]], list[list[Cell]]] = {}
    keys: dict[str, Mapping[str, Key]] = {}
    for cell in sorted((c for c in cells if c.condition == CLEAN), key=rank):
        kind = kind_of(cell)
        if kind is None or size(samples(cell.inputs)) >= samples(cell.inputs):
            continue
        asked = cell.model, cell.file, cell.inputs, cell.runtime
        found = classes.setdefault((kind, asked), [])
        house(found, cell, apart)
        keys.setdefault(cell.id, kind.keys)
    groups: list[Group] = []
    instead: dict[str, Cell] = {}
    for (kind, _), found in classes.items():
        for alike in (c for c in found if len(c) > 1):
            condition = spot(Draw(size(samples(alike[0].inputs)), seed))
            spots = [c.under(condition) for c in alike]
            instead |= {c.id: s for c, s in zip(alike[1:], spots[1:], strict=True)}
            members = tuple(
                Member(slot=c.slot, full=c.id, spot=s.id) for c, s in zip(alike, spots, strict=True)
            )
            groups.append(
                Group(
                    fingerprint=kind.fingerprint,
                    version=kind.version,
                    members=members,
                    keys={unit: key for c in alike for unit, key in keys[c.id].items()},
                )
            )
    return tuple(instead.get(c.id, c) for c in cells), tuple(groups)
