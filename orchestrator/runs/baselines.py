"""The answers of FP32 parents as a store keeps them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.errors import DamageError
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.store.database import Store
from orchestrator.store.digests import damaged
from orchestrator.store.records import Json


@dataclass(frozen=True)
class Baseline:
    """What an FP32 parent answered on an input set.

    ``outputs``: sha256 of each output's .npy. ``error`` is set where the parent did not run,
    ``damage`` where its record is not what was written.
    """

    attempt: str | None
    outputs: tuple[str, ...] = ()
    error: str | None = None
    damage: DamageError | None = None


def stored(store: Store, frozen: FrozenRun) -> dict[tuple[str, str], Baseline]:
    """(model, inputs) -> the newest answers of its FP32 parent in the store, of any environment."""
    found: dict[tuple[str, str], Baseline] = {}
    for spec in frozen.matrix.models:
        for inputs in spec.inputs:
            tensor = frozen.staging.tensors.get(f"{spec.name}/{inputs}")
            if spec.fp32 is None or tensor is None:
                continue
            sha256 = frozen.staging.models[spec.name].sha256
            read = functools.partial(store.baseline_newest, sha256, [tensor.sha256])
            if known := _known(read):
                found[spec.name, inputs] = known
    return found


def _known(read: Callable[[], Json | None]) -> Baseline | None:
    try:
        kept = read()
        return None if kept is None else Baseline(kept["attempt"], tuple(map(str, kept["outputs"])))
    except DamageError as error:
        return Baseline(None, damage=error)
    except (KeyError, TypeError) as error:
        return Baseline(None, damage=damaged("an FP32 baseline", repr(error)))
