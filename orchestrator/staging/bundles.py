"""Hermetic bundles of a run: found before anything is queued, kept by hash like all files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.devices.bundle import BundleFile, find_bundle
from orchestrator.errors import InfraError, InputError
from orchestrator.matrix.inventory import Inventory, bundle_name
from orchestrator.matrix.model import Matrix
from orchestrator.matrix.plan import Cell
from orchestrator.runs.staged import StagedBundle, Staging
from orchestrator.store.artefacts import Artefacts


def find_bundles(
    matrix: Matrix, inventory: Inventory, cells: Iterable[Cell]
) -> tuple[BundleFile, ...]:
    """The newest of every bundle that a cell may need. Raises InputError E-BUNDLE-MISSING."""
    pairs = {
        (unit, matrix.runtime(cell.runtime).runtime) for cell in cells for unit in cell.candidates
    }
    pythons = {inventory.device(unit).interpreter(runtime) for unit, runtime in pairs}
    names = {name for python in pythons if (name := bundle_name(python)) is not None}
    return tuple(find_bundle(name) for name in sorted(names))


def keep_bundles(bundles: Iterable[BundleFile], artefacts: Artefacts) -> dict[str, StagedBundle]:
    """Put them into the artefact store. Raises InputError E-BUNDLE-DAMAGED."""
    kept = {}
    for bundle in bundles:
        try:
            blob = artefacts.put_file(Path(bundle.path), expect=bundle.sha256)
        except InfraError as error:
            if error.id != "E-ARTEFACT-CORRUPT":
                raise
            raise InputError(
                "E-BUNDLE-DAMAGED",
                f"the hermetic bundle {bundle.name!r} has not the sha256 of its manifest",
                where=bundle.path,
                fix=f"python -m infra.bundles build --force {bundle.name}",
            ) from None
        kept[bundle.name] = StagedBundle(sha256=blob.sha256, size=blob.size)
    return kept


def bundle_for(python: str | None, staging: Staging, artefacts: Artefacts) -> BundleFile | None:
    """The bundle that the run has kept for this interpreter; None for one of the device's own."""
    name = bundle_name(python)
    if name is None:
        return None
    kept = staging.bundles[name]
    return BundleFile(name, kept.sha256, kept.size, str(artefacts.path(kept.sha256)))
