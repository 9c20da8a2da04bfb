"""A recorded run, read once: the one way from a store to what a question asks about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property

from orchestrator.errors import AssayError
from orchestrator.runs.baselines import Baseline, stored
from orchestrator.runs.snapshot import FrozenRun, load_run
from orchestrator.store.database import Store
from orchestrator.store.records import AttemptInfo, CellInfo, DeviceInfo, Json, RunInfo
from orchestrator.store.rows import counted

Damage = Callable[[str, AssayError], None]


class Shared:
    """What all runs of a store have in common: its devices and environments, each read once."""

    def __init__(self, store: Store) -> None:
        self.environment = cache(store.environment_data)
        self._store = store

    @cached_property
    def devices(self) -> dict[str, DeviceInfo]:
        return {device.name: device for device in self._store.devices()}


class Run:
    """A run without its answers (`runs.observations` reads those), each part read when first asked.

    For the life of ``store``; not thread-safe. What it once read stays as it was, so a run that
    goes on is read by a new one. ``damaged``: what readers could not read, by its name; the rest
    answers. ``told`` hears of each as it is found.
    """

    def __init__(
        self,
        store: Store,
        of: RunInfo | str | None = None,
        *,
        frozen: FrozenRun | None = None,
        shared: Shared | None = None,
        told: Damage | None = None,
    ) -> None:
        """``of``: the beginning of its ID, None the newest. ``frozen``: its snapshot, if known.

        Raises InputError E-RUN-UNKNOWN, E-RUN-AMBIGUOUS.
        """
        self.store = store
        self.info = of if isinstance(of, RunInfo) else store.run(of)
        self.damaged: dict[str, AssayError] = {}
        self._told, self._known = told, frozen
        self._shared = shared or Shared(store)

    @property
    def id(self) -> str:
        return self.info.id

    @cached_property
    def frozen(self) -> FrozenRun:
        """Raises InputError E-FROZEN, DamageError E-STORE-DAMAGED."""
        return self._known or load_run(self.store.frozen(self.id))

    @cached_property
    def cells(self) -> Sequence[CellInfo]:
        """In plan order."""
        return self.store.cells(self.id)

    @cached_property
    def attempts(self) -> dict[str, AttemptInfo]:
        """By ID, in order of their claim."""
        _ = self.cells  # read before: each that is done then finds the attempt that ended it
        return {attempt.id: attempt for attempt in self.store.attempts(self.id)}

    @property
    def devices(self) -> dict[str, DeviceInfo]:
        """All that the store knows, by name."""
        return self._shared.devices

    @cached_property
    def parents(self) -> dict[tuple[str, str], Baseline]:
        """(model, inputs) -> the newest stored answers of its FP32 parent."""
        return stored(self.store, self.frozen)

    def counted(self, cell: CellInfo) -> AttemptInfo | None:
        """The attempt that counts for the cell.

        Raises DamageError E-STORE-DAMAGED where cell and attempt are not what was written.
        """
        return counted(cell, self.attempts)

    def unit(self, cell: CellInfo) -> str:
        """The unit that answered, was to answer, or else the slot."""
        attempt = self.attempts.get(cell.attempt or "")
        return (attempt.device if attempt else None) or cell.unit or cell.slot

    def environment(self, attempt: AttemptInfo | None) -> Json:
        """What the worker said of its device, {} where there was none. Raises DamageError."""
        if attempt is None or not attempt.environment:
            return {}
        return self._shared.environment(attempt.environment)

    def damage(self, what: str, error: AssayError) -> None:
        """``what`` could not be read."""
        self.damaged[what] = error
        if self._told is not None:
            self._told(what, error)


def every_run(store: Store) -> Iterator[Run]:
    """All runs, newest first; they share what they have in common."""
    shared = Shared(store)
    for info in store.runs(_EVERY):
        yield Run(store, info, shared=shared)


_EVERY = 1 << 31
"""More runs than a store holds."""
