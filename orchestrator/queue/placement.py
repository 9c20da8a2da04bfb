"""Which slot a unit serves, and which of the slot's cells comes next."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Prefer:
    """What the unit's warm worker has loaded: the last cell's runtime environment and model."""

    env_key: str
    model: str


def preferences(prefer: Prefer | None) -> tuple[Mapping[str, str], ...]:
    """Filters on pending cells, best first; within one filter plan order decides.

    Another environment costs a new process on the device, another model only a load.
    """
    if prefer is None:
        return ({},)
    return (
        {"env_key": prefer.env_key, "model": prefer.model},
        {"env_key": prefer.env_key},
        {},
    )


def choose_slot(unit: str, slots: Mapping[str, Collection[str]]) -> str | None:
    """The first of the unbound ``slots`` (slot -> its candidate units, plan order) for ``unit``.

    One unit serves one slot of a run, else two slots of a class would compare a unit with itself.
    A slot is refused when taking it would leave another one without any unit that could
    otherwise have had one: with a: {u1}, b: {u1, u2} the unit u1 takes a, whatever the order.
    """
    best = len(matching(slots))
    for slot, candidates in slots.items():
        if unit in candidates:
            rest = {s: [u for u in c if u != unit] for s, c in slots.items() if s != slot}
            if len(matching(rest)) + 1 == best:
                return slot
    return None


def matching(slots: Mapping[str, Collection[str]]) -> dict[str, str]:
    """A largest assignment slot -> unit with no unit used twice (augmenting paths, Kuhn 1955)."""
    holder: dict[str, str] = {}
    for start in slots:
        # Breadth first from one free slot; ``via`` remembers who wanted each unit.
        via: dict[str, str] = {}
        frontier = [start]
        end: str | None = None
        while frontier and end is None:
            slot = frontier.pop(0)
            for unit in slots[slot]:
                if unit not in via:
                    via[unit] = slot
                    if unit not in holder:
                        end = unit
                        break
                    frontier.append(holder[unit])
        while end is not None:
            slot = via[end]
            previous = next((u for u, s in holder.items() if s == slot), None)
            holder[end] = slot
            end = previous
    return {slot: unit for unit, slot in holder.items()}
