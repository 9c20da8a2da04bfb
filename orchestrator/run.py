"""The data flow on one screen.

matrix → plan → stage → queue → lease → fan-out → results → store → variance → sign-off → document
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.coordinator import representatives
from orchestrator.coordinator.events import Progress
from orchestrator.coordinator.loop import Stop, work_off
from orchestrator.coordinator.representatives import Wanted
from orchestrator.devices.bundle import BundleFile
from orchestrator.errors import AssayError, NotAvailableError
from orchestrator.fanout.executor import Executor
from orchestrator.matrix.by_class import ByClass
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.loader import load_matrix
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.plan import Cell, expand, select
from orchestrator.matrix.policy import Policy
from orchestrator.matrix.yamlfile import Loc, load
from orchestrator.offline.outstanding import outstanding
from orchestrator.runs.run import Run
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.staging.bundles import find_bundles, keep_bundles
from orchestrator.staging.stage import Compute, check_unchanged, stage
from orchestrator.store import queued
from orchestrator.store.artefacts import Artefacts
from orchestrator.store.compact import compact
from orchestrator.store.database import Store
from orchestrator.store.owner import this_process
from orchestrator.store.records import CellSpec


@dataclass(frozen=True)
class Planned:
    """``devices``: units that any of the cells may go to. ``bundles``: those that they need.

    ``where``: as of the loaded matrix.
    ``by_class``: where one unit of each equivalence class stands for the others.
    """

    matrix: Matrix
    inventory: Inventory
    policy: Policy | None
    cells: tuple[Cell, ...]
    where: Callable[[Loc], str]
    bundles: tuple[BundleFile, ...] = ()
    by_class: ByClass | None = None

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(sorted({name for cell in self.cells for name in cell.candidates}))


def plan(path: Path, patterns: Sequence[str]) -> Planned:
    """Read a matrix file and everything it names, expand, select. Touches no device or store."""
    loaded = load_matrix(path)
    policy = load(loaded.matrix.policy, Policy) if loaded.matrix.policy else None
    cells = select(expand(loaded.matrix, loaded.inventory).cells, patterns)
    bundles = find_bundles(loaded.matrix, loaded.inventory, cells)
    return Planned(loaded.matrix, loaded.inventory, policy, cells, loaded.where, bundles)


def divide(
    store: Store, planned: Planned, wanted: Wanted, unreadable: dict[str, AssayError]
) -> tuple[Planned, representatives.Division]:
    """The plan by equivalence class, and what else was found (representatives.divide)."""
    found = representatives.divide(
        store,
        planned.matrix,
        planned.inventory,
        planned.policy,
        planned.cells,
        wanted,
        unreadable,
    )
    return replace(planned, cells=found.cells, by_class=found.by_class), found


def prepare(
    planned: Planned, artefacts: Artefacts, compute: Compute, *, lineage: bool = True
) -> tuple[dict[str, Any], list[CellSpec]]:
    """Everything that a run keeps, its files put into ``artefacts``, and its cells.

    ``lineage``: as of `stage`. Raises InputError for whatever no run can be made of.
    """
    matrix, cells = planned.matrix, planned.cells
    bundles = keep_bundles(planned.bundles, artefacts)
    staging = stage(matrix, cells, artefacts, compute, planned.where, lineage=lineage)
    staging = staging.model_copy(update={"bundles": bundles})
    slots = {cell.slot: cell.candidates for cell in cells}
    frozen = FrozenRun(matrix, planned.inventory, planned.policy, staging, slots, planned.by_class)
    data = frozen.dump()
    check_unchanged(matrix, staging, data["files"])
    specs = [
        CellSpec(**vars(cell), env_key=matrix.runtime(cell.runtime).runtime, position=position)
        for position, cell in enumerate(cells)
    ]
    queued.slots_of(specs)
    return data, specs


def enqueue(store: Store, planned: Planned, compute: Compute) -> str:
    """Stage the artefacts, then queue the cells; the run's ID. Nothing is queued on an error."""
    matrix, inventory = planned.matrix, planned.inventory
    data, cells = prepare(planned, store.artefacts, compute)
    known = {device.name: device for device in store.devices()}
    for name in planned.devices:
        # Whether a unit is emulated is for the unit to say; until it has, what it said last.
        seen = known.get(name)
        emulated, identity = (seen.emulated, seen.identity) if seen else (False, {})
        store.upsert_device(name, inventory.device(name).class_, emulated, identity)
    return store.create_run(
        name=matrix.name,
        frozen=data,
        retry_infra=matrix.retry.infra,
        cells=cells,
    )


def finish(
    store: Store, run_id: str, fan: Executor, progress: Progress, stop: Stop
) -> dict[str, Any] | None:
    """Work the run off and judge it: the result document, or None when stopped before the end.

    Raises NotAvailableError E-PACK-OUTSTANDING when all that is left are cells that were packed.
    """
    frozen = Run(store, run_id).frozen
    more = representatives.Representatives(store, run_id, frozen, progress).more
    work_off(store, fan, run_id, frozen, progress, stop, this_process(), more)
    if stop.draining.is_set():
        return None
    stop.worked_off.set()
    if out := store.packs(run_id):
        raise NotAvailableError(
            "E-PACK-OUTSTANDING",
            f"inconclusive: {outstanding(out)}",
            where=run_id,
            fix="assay ingest RESULT, or assay pack --cancel; assay signoff judges the rest",
        )
    compact(store, run_id)
    return judge(Run(store, run_id, frozen=frozen), fan)


def judge(
    run: Run,
    fan: Executor,
    policy: Policy | None = None,
    damage: Mapping[str, AssayError] = MappingProxyType({}),
) -> dict[str, Any]:
    """The document of a run as it stands, under its own policy or another one.

    ``damage``: what is known to be damaged beforehand (store.uses.run_damage).
    """
    from orchestrator.analysis.verdict import conclude
    from orchestrator.coordinator.baselines import baselines

    parents = baselines(run.store, fan, run.frozen)
    return conclude(run, parents, fan.compute, policy, damage)
