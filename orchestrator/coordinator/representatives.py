"""Audits by equivalence class: one unit of each class answers for the others.

Which unit represents which is planned from the fingerprints in the store, and checked against the
answers as they come in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from orchestrator.conditions import CLEAN
from orchestrator.coordinator.events import Progress
from orchestrator.errors import AssayError
from orchestrator.fingerprint.hypothesis import configuration
from orchestrator.fingerprint.provenance import taken_on
from orchestrator.matrix.by_class import ByClass, Group, Kind, group
from orchestrator.matrix.inventory import Inventory
from orchestrator.matrix.key import Key
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.plan import Cell
from orchestrator.matrix.policy import Policy
from orchestrator.matrix.runtime import runtime_spec
from orchestrator.matrix.work import count_samples
from orchestrator.queue.states import CellState
from orchestrator.runs.observations import observation_or_error, samples_of
from orchestrator.runs.run import Run
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.store.database import Store
from orchestrator.store.records import CellInfo, CellSpec
from orchestrator.variance.class_cover import settle
from orchestrator.variance.factors import kernels
from orchestrator.variance.observation import Observation
from orchestrator.variance.spot import sample_size


@dataclass(frozen=True)
class Wanted:
    """A spot check sees a difference in ``share`` of the samples with probability ``confidence``.

    ``seed`` draws its samples.
    """

    confidence: float
    share: float
    seed: int


@dataclass(frozen=True)
class Division:
    """``unknown``: units and configurations of clean cells without one stored fingerprint.

    ``stale``: why clean cells run in full although there are fingerprints.
    """

    cells: tuple[Cell, ...]
    by_class: ByClass
    unknown: tuple[str, ...]
    stale: tuple[str, ...]


def divide(
    store: Store,
    matrix: Matrix,
    inventory: Inventory,
    policy: Policy | None,
    cells: Sequence[Cell],
    wanted: Wanted,
    unreadable: dict[str, AssayError],
) -> Division:
    """Representatives in full, the others of their class by spot checks.

    Two that ever answered one question differently are kept apart as long as their fingerprints
    speak for these answers; a candidate for the reference represents its class. A stale fingerprint
    is as good as none. Runs whose record is damaged are told to ``unreadable`` and count for
    nothing. Raises InputError E-INPUT-UNREADABLE, E-INPUT-ARRAY.
    """
    from orchestrator.fingerprint.record import record

    known = record(store, unreadable)
    emulated = {d.name: d.emulated for d in store.devices()}
    unknown: dict[str, None] = {}
    stale: dict[str, None] = {}

    def names(cell: Cell) -> list[tuple[str, str]]:
        config = matrix.runtime(cell.runtime)
        specs = [(u, runtime_spec(config, inventory.device(u))) for u in cell.candidates]
        return [(unit, configuration(spec.runtime, kernels(spec))) for unit, spec in specs]

    def kind_of(cell: Cell) -> Kind | None:
        if matrix.runtime(cell.runtime).reset == "off":
            stale[f"{cell.runtime} keeps state (reset: off), which a spot check lacks"] = None
            return None
        kinds: set[Kind] = set()
        keys: dict[str, Key] = {}
        for unit, name in names(cell):
            taken = known.prints.newest(unit, name)
            if taken is None:
                unknown[f"{unit}:{name}"] = None
            elif why := known.stale.get((unit, name)):
                stale[why] = None
            else:
                keys[unit] = taken_on(taken)
                kinds.add(Kind(taken.sha256, keys[unit].version, emulated.get(unit, False)))
        if len(kinds) != 1 or len(keys) < len(cell.candidates):
            return None
        return replace(kinds.pop(), keys=keys)

    def were_apart(a: Cell, b: Cell) -> bool:
        return any(
            known.tested.between(":".join(x), ":".join(y)) for x in names(a) for y in names(b)
        )

    planned, groups = group(
        cells,
        kind_of,
        were_apart,
        rank=lambda cell: _rank(policy, inventory, cell),
        samples=cache(lambda name: count_samples(matrix.input_set(name))),
        size=partial(sample_size, share=wanted.share, confidence=wanted.confidence),
        seed=wanted.seed,
    )
    by_class = ByClass(confidence=wanted.confidence, share=wanted.share, groups=groups)
    return Division(planned, by_class, tuple(unknown), tuple(stale))


def _rank(policy: Policy | None, inventory: Inventory, cell: Cell) -> int:
    """The place of the first candidate for the reference that a unit of the cell fits."""
    candidates = policy.reference if policy else ()
    units = [inventory.device(name) for name in cell.candidates]
    for place, candidate in enumerate(candidates):
        if any(
            candidate.fits(cell.model, cell.file, u.name, u.class_, cell.runtime) for u in units
        ):
            return place
    return len(candidates)


class Representatives:
    """Watches a run's spot checks, and queues in full the cells of those nobody stands for."""

    def __init__(self, store: Store, run: str, frozen: FrozenRun, progress: Progress) -> None:
        self._store, self._run, self._frozen, self._progress = store, run, frozen, progress
        self._seen: dict[str, Observation] = {}

    def more(self) -> int:
        """Queue what the answers so far call for; how many cells. Safe to repeat.

        Who answered in a file that is damaged has no answer. Raises InfraError E-STORE-*, and
        E-ARTEFACT-* where the list of samples drawn is.
        """
        if self._frozen.by_class is None:
            return 0
        cells = {cell.id: cell for cell in self._store.cells(self._run)}
        new = [c for c in cells.values() if c.state is CellState.DONE and c.id not in self._seen]
        return sum(
            self._settle(each, cells)
            for each in self._frozen.by_class.groups
            if any(cell.id in (m.full, m.spot) for m in each.members for cell in new)
        )

    def _settle(self, each: Group, cells: Mapping[str, CellInfo]) -> int:
        found = settle(each, self._observed(each, cells))
        spots = {m.full: cells[m.spot] for m in each.members if m.full in found.queue}
        new = self._store.add_cells(self._run, [_in_full(i, spot) for i, spot in spots.items()])
        if new:
            for id, spot in spots.items():
                why = next((x.why for x in found.left if x.spot == spot.id), None)
                self._progress.message(f"{id} queued: {why or 'its representative has no answer'}")
            self._progress.grow(new)
        return new

    def _observed(self, each: Group, cells: Mapping[str, CellInfo]) -> dict[str, Observation]:
        """The group as it stands, all of it over the samples drawn: only those are held."""
        ids = [i for m in each.members for i in (m.full, m.spot) if i in cells]
        new = [i for i in ids if i not in self._seen and cells[i].state is CellState.DONE]
        run = Run(self._store, self._run, frozen=self._frozen, told=self._damaged)
        drawn = next(samples_of(run, cells[m.spot]) for m in each.members if m.spot in cells)
        found = {}
        for id in ids:
            seen = self._seen.get(id) or observation_or_error(run, cells[id])
            if id in new:
                rows = slice(None) if seen.samples is not None else drawn
                outputs = tuple(replace(o, values=o.values[rows]) for o in seen.outputs)
                seen = self._seen[id] = replace(seen, outputs=outputs, samples=None)
            found[id] = seen
        return found

    def _damaged(self, cell: str, error: AssayError) -> None:
        self._progress.message(f"{cell}: {error}")


def _in_full(id: str, spot: CellInfo) -> CellSpec:
    """The cell ``id`` of the whole input set beside its spot check."""
    return CellSpec(
        id=id,
        slot=spot.slot,
        candidates=(),
        model=spot.model,
        file=spot.file,
        inputs=spot.inputs,
        condition=CLEAN,
        runtime=spot.runtime,
        env_key=spot.env_key,
        position=spot.position,
    )
