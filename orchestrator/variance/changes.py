"""One question asked again over time: did the answer stay, and what changed beside it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

VOLATILE = ("runtimes",)
"""Parts of an environment that say nothing about the runtime in use: what else is installed."""


@dataclass(frozen=True)
class Change:
    """One recorded thing that differs; None is unknown. Of lists: what is only on that side."""

    what: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Step:
    """From the answer at ``index`` - 1 to the one at ``index``."""

    index: int
    identical: bool
    changes: tuple[Change, ...]


def steps(
    answers: Sequence[tuple[str, Mapping[str, Any]]],
) -> list[Step]:
    """``answers``: the content ID and the environment of each, in order of time.

    Steps in which neither bytes nor environment change are left out.
    """
    found = []
    for i, ((was, before), (now, after)) in enumerate(pairwise(answers), 1):
        step = Step(i, was == now, tuple(changes(before, after)))
        if step.changes or not step.identical:
            found.append(step)
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What two environments (`device_worker.environment`) differ in, ``runtime.version`` by path.

    {} is an environment that nobody recorded: everything known on the other side is a change.
    """
    a, b = _flat(before), _flat(after)
    return [
        Change(what, *_only(a.get(what), b.get(what)))
        for what in sorted(a.keys() | b.keys())
        if a.get(what) != b.get(what)
    ]


def _flat(data: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        if not path and name in VOLATILE:
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{path}{name}.")
        else:
            found[path + name] = value
    return found


def _only(a: Any, b: Any) -> tuple[Any, Any]:
    """Of two lists, what each has alone, unless that is nothing: then they differ in order."""
    if isinstance(a, list) and isinstance(b, list):
        mine, theirs = [x for x in a if x not in b], [x for x in b if x not in a]
        return (mine, theirs) if mine or theirs else (a, b)
    return a, b
