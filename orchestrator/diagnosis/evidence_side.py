"""One row's attempts → what is known of where its answer came from. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from device_worker.wire import RuntimeSpec
from orchestrator.conditions import CLEAN
from orchestrator.diagnosis.evidence import Side, adds_pairs_in_int16
from orchestrator.variance.factors import CPU, Factors
from orchestrator.variance.observation import Observation
from orchestrator.variance.repeatability import reordered, repeated


def side(
    row: str,
    found: Factors,
    spec: RuntimeSpec,
    result: Mapping[str, Any],
    environment: Mapping[str, Any],
    cells: Sequence[Observation],
) -> Side:
    """One side of the evidence, from what its attempt recorded.

    ``result``: the worker's `wire.JobResult` as JSON data; ``environment``: what it says of itself,
    {} where none was kept. ``cells``: all cells of the row for the file, whatever the condition.
    """
    backend = result["backend"]
    ran = [cell for cell in cells if cell.status == "ok"]
    # With its state left alone a model is not asked the same question twice.
    again = [r for r in map(repeated, ran) if r] if spec.reset else []
    clean = next((cell for cell in ran if cell.row.condition == CLEAN), None)
    told = asdict(found) | {"threads": str(found.threads)}
    return Side(
        row=row,
        factors={k: str(v) for k, v in told.items() if v is not None},
        inputs=tuple(result["input_sha256"]),
        fallbacks=tuple(backend["fallbacks"]),
        operators=backend.get("operators", {}),
        repeated=sum(r.compared for r in again),
        mismatches=sum(r.mismatches for r in again),
        order=reordered(ran, clean),
        pair_sums=adds_pairs_in_int16(
            environment.get("machine"), frozenset(environment.get("isa_flags") or ())
        ),
        accelerated=spec.delegate is not None or spec.providers[0] != CPU,
    )
