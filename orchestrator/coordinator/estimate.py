"""How long an inference took last time, and what a plan by class therefore saves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from orchestrator.conditions import parse
from orchestrator.errors import AssayError, DamageError
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.loader import sha256_file
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.plan import Cell
from orchestrator.matrix.runtime import runtime_spec
from orchestrator.matrix.work import total_work
from orchestrator.runs.answers import standings
from orchestrator.runs.run import every_run
from orchestrator.store.database import Store
from orchestrator.store.series import LATENCY, Series
from orchestrator.variance.factors import Way, way


class Kind(NamedTuple):
    """What is timed: a file on a unit, computed in one way."""

    unit: str
    file_sha256: str
    way: Way


def paces(
    store: Store, wanted: Collection[Kind], unreadable: dict[str, AssayError]
) -> dict[Kind, float]:
    """Mean seconds of an inference in the newest answer of each way that has one.

    What is damaged is told to ``unreadable``.
    """
    found: dict[Kind, float] = {}
    series: dict[str, Series] = {}
    for standing in standings(every_run(store), unreadable) if wanted else ():
        answer = standing.answer
        if answer is None or not parse(standing.row.condition).timed:
            continue  # heat, power and endless repeats have a pace of their own
        kind = Kind(answer.factors.unit, answer.file_sha256, answer.factors.way)
        if kind not in wanted or kind in found:
            continue
        run = standing.run.id
        if run not in series:
            series[run] = Series(store, run, LATENCY)
        if answer.attempt.id in series[run].attempts:
            try:
                ns = series[run].table(answer.attempt.id)["ns"].to_numpy()
            except DamageError as error:
                unreadable[f"latency of {standing.cell.id} of {run}"] = error
                continue
            if len(ns):
                found[kind] = float(ns.mean()) / 1e9
    return found


class Saved(NamedTuple):
    """Device-hours that ``timed`` of ``spots`` spot checks save; of the others no pace is known."""

    hours: float
    timed: int
    spots: int
    emulated: bool


def saved(
    store: Store,
    matrix: Matrix,
    inventory: Inventory,
    in_full: Sequence[Cell],
    by_class: Sequence[Cell],
) -> Saved:
    """What running ``by_class`` in place of ``in_full`` saves, at the pace of earlier runs."""
    before = total_work(matrix, in_full).inferences
    after = total_work(matrix, by_class).inferences
    less: list[tuple[Kind, int]] = []
    for full, cell in zip(in_full, by_class, strict=True):
        if cell.id == full.id:
            continue
        unit = cell.candidates[0]
        spec = runtime_spec(matrix.runtime(cell.runtime), inventory.device(unit))
        sha256 = sha256_file(matrix.file(cell.model, cell.file).path)
        less.append((Kind(unit, sha256, way(spec)), before[full.id] - after[cell.id]))
    pace = paces(store, {kind for kind, _ in less}, {})  # the division told what is unreadable
    emulated = {d.name for d in store.devices() if d.emulated}
    seconds = [pace[kind] * count for kind, count in less if kind in pace]
    of_emulated = any(kind.unit in emulated for kind in pace)
    return Saved(sum(seconds) / 3600, len(seconds), len(less), of_emulated)
