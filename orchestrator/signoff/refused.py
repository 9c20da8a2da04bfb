"""What a runtime refuses on every device of its kind is the model's; what one refuses is its own.

Pure: observations in, observations out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchestrator.conditions import CLEAN
from orchestrator.matrix.key import UNKNOWN, Key
from orchestrator.variance.observation import Observation


def first_the_devices(observations: Sequence[Observation]) -> list[Observation]:
    """The same, but a model_error is an infra_error where another device of its kind ran the model.

    Of one kind are units of one class under one runtime configuration, unless they are known to
    have other versions or builds of the runtime.
    """
    ran: dict[tuple[object, ...], list[Observation]] = defaultdict(list)
    keys: dict[tuple[str, str], Key] = {}
    for seen in observations:
        if seen.status == "ok" and seen.row.condition == CLEAN:
            ran[_kind(seen)].append(seen)
        if seen.key != UNKNOWN:
            keys[seen.row.device, seen.row.runtime] = seen.key
    return [_settled(seen, ran.get(_kind(seen), ()), keys) for seen in observations]


def _settled(
    seen: Observation, ran: Iterable[Observation], keys: dict[tuple[str, str], Key]
) -> Observation:
    if seen.status != "model_error":
        return seen
    mine = keys.get((seen.row.device, seen.row.runtime), UNKNOWN)
    units = (o for o in ran if o.row.device != seen.row.device)
    other = next((o for o in units if _same_runtime(mine, o.key)), None)
    if other is None:
        return seen
    error = f"refused although {other.row.device} ran it: {seen.error or 'no reason recorded'}"
    return replace(seen, status="infra_error", error=error)


def _kind(seen: Observation) -> tuple[object, ...]:
    row = seen.row
    return row.model, row.file, row.inputs, row.runtime, row.device_class, row.emulated


def _same_runtime(mine: Key, theirs: Key) -> bool:
    """Whether nothing is known that tells them apart."""
    pairs = (mine.version, theirs.version), (mine.build, theirs.build)
    return all(None in pair or pair[0] == pair[1] for pair in pairs)
