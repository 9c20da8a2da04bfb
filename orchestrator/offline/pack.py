"""`assay pack`: cells of a run leave as one archive that anyone can run by hand.

The cells are claimed in the store under the archive's nonce, so that they are run once: here or
there. What the archive says is made of the very orders that a hub would have been given.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import secrets
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from device_worker import wire
from device_worker.archive import (
    BUNDLES,
    MANIFEST_FILE,
    PACK,
    START,
    WORKER,
    Gate,
    Manifest,
    PackedJob,
    canonical,
    result_name,
    sha256_of,
)
from orchestrator.coordinator.jobs import order_for
from orchestrator.devices.bundle import BOOTSTRAP, worker_bundle
from orchestrator.errors import InputError
from orchestrator.fanout.hub_job import Order
from orchestrator.offline.script import run_script
from orchestrator.queue.states import CellState
from orchestrator.runs.run import Run
from orchestrator.runs.snapshot import FrozenRun
from orchestrator.store import packs
from orchestrator.store.database import Store
from orchestrator.store.farm import farm_id
from orchestrator.store.records import CellInfo, Claim, Json


@dataclass(frozen=True)
class Packed:
    """``cells``: those that left. ``kept``: cell -> why it cannot run on the device at all."""

    path: Path
    nonce: str
    device: str
    cells: tuple[str, ...]
    kept: Mapping[str, str]


def pack(
    store: Store, run: str, globs: Sequence[str], folder: Path, *, device: str | None = None
) -> Packed:
    """Claim the waiting cells of ``run`` that match and write their archive into ``folder``.

    Raises InputError E-PACK-CELLS (none to pack), E-PACK-DEVICE (which unit, or it may not),
    E-PACK-WRITE (nothing is claimed then), InfraError E-STORE-*, E-ARTEFACT-MISSING.
    """
    recorded, farm = Run(store, run), farm_id(store.database.path.parent)
    frozen = recorded.frozen
    cells = waiting(recorded.cells, globs, run)
    unit = device or only_unit(cells, frozen, run)
    able = [c for c in cells if may_go(c, unit, frozen)]
    if not able:
        raise InputError(
            "E-PACK-DEVICE",
            f"none of the {len(cells)} cells may go to {unit!r}",
            where=run,
            fix=f"units of these cells: {', '.join(units(cells, frozen))}",
        )
    orders: dict[str, Order] = {}

    def order(claim: Claim) -> Order:
        return order_for(claim, frozen, store.artefacts, farm)

    kept = {
        cell.id: why
        for cell in able
        if (why := order(Claim("0" * 32, 1, unit, 0, cell)).unavailable) is not None
    }
    wanted = [cell.id for cell in able if cell.id not in kept]
    if not wanted:
        raise InputError(
            "E-PACK-CELLS",
            f"no cell can run on {unit}: {next(iter(kept.values()))}",
            where=run,
            fix="`assay resume` ends such cells without the device",
        )
    nonce = secrets.token_hex(16)

    def manifest(claims: Sequence[Claim]) -> Json:
        orders.update({claim.cell.id: order(claim) for claim in claims})
        return wire.dump(describe(orders, nonce, run, farm))

    with _part(folder) as part:
        data = packs.claim(store, run, unit, wanted, nonce, manifest)
        try:
            sha256 = write(part, data, list(orders.values()))
            path = folder / f"assay-pack-{run[:8]}-{sha256[:16]}.tar.gz"
            part.replace(path)
        except BaseException:
            packs.take_back(store, nonce)
            store.unit_lost(run, unit)
            raise
    return Packed(path, nonce, unit, tuple(orders), kept)


def cancel(store: Store, run: str, device: str | None = None) -> dict[str, int]:
    """Cells that are out wait again: nonce -> how many. Their archives can no longer be ingested.

    Raises InputError E-PACK-NONE.
    """
    out = [info for info in store.packs(run) if device in (None, info.device)]
    if not out:
        raise InputError(
            "E-PACK-NONE",
            "no packed cell is out" + (f" for {device}" if device else ""),
            where=run,
            fix="see: assay status",
        )
    back = {info.nonce: packs.take_back(store, info.nonce) for info in out}
    for unit in sorted({info.device for info in out}):
        store.unit_lost(run, unit)
    return back


def waiting(cells: Sequence[CellInfo], globs: Sequence[str], run: str) -> list[CellInfo]:
    """The cells that match one of ``globs`` and wait. Raises InputError E-PACK-CELLS."""
    matching = [c for c in cells if any(fnmatchcase(c.id, glob) for glob in globs)]
    if not matching:
        raise InputError(
            "E-PACK-CELLS",
            f"no cell matches {' '.join(globs)!r}",
            where=run,
            fix="`assay logs` and `assay plan` show their IDs",
        )
    found = [c for c in matching if c.state is CellState.PENDING]
    if not found:
        running = sum(c.state is CellState.RUNNING for c in matching)
        raise InputError(
            "E-PACK-CELLS",
            f"none of the {len(matching)} cells waits: {running} running or packed,"
            f" {len(matching) - running} done",
            where=run,
            fix="packed cells are taken back with `assay pack RUN --cancel`",
        )
    return found


def units(cells: Sequence[CellInfo], frozen: FrozenRun) -> list[str]:
    """Units that any of the cells may go to."""
    return sorted({u for c in cells for u in ([c.unit] if c.unit else frozen.slots[c.slot])})


def only_unit(cells: Sequence[CellInfo], frozen: FrozenRun, run: str) -> str:
    """Raises InputError E-PACK-DEVICE where there is a choice."""
    found = units(cells, frozen)
    if len(found) != 1:
        raise InputError(
            "E-PACK-DEVICE",
            f"the {len(cells)} cells may go to several units: {', '.join(found)}",
            where=run,
            fix="choose one with --device",
        )
    return found[0]


def may_go(cell: CellInfo, unit: str, frozen: FrozenRun) -> bool:
    return unit == cell.unit if cell.unit else unit in frozen.slots[cell.slot]


def describe(orders: Mapping[str, Order], nonce: str, run: str, farm: str) -> Manifest:
    """The manifest of the orders (cell -> order), which are all for one unit."""
    target = next(iter(orders.values())).target
    worker = worker_bundle()
    return Manifest(
        schema=PACK,
        nonce=nonce,
        farm=farm,
        run=run,
        device=target.device,
        device_class=target.device_class,
        worker=wire.Blob(worker.sha256, len(worker.data)),
        bundles={o.bundle.sha256: o.bundle.size for o in orders.values() if o.bundle},
        jobs=[_packed(cell, order) for cell, order in orders.items()],
        facts=[source.source() for source in target.identity.sources],
    )


def _packed(cell: str, order: Order) -> PackedJob:
    assert order.python is not None  # such an order is unavailable
    return PackedJob(
        cell=cell,
        job=order.job,
        python=order.python,
        own_python=order.own_python,
        timeout_s=order.limits.cell,
        env=dict(order.env),
        gate=Gate(order.max_start_c, order.min_battery, order.settle_s),
        bundle=order.bundle.sha256 if order.bundle else None,
    )


def write(path: Path, manifest: Json, orders: Sequence[Order]) -> str:
    """The archive at ``path``: equal manifests give equal bytes. Its sha256 hex.

    Raises InputError E-PACK-WRITE, InfraError E-ARTEFACT-*.
    """
    data, top = wire.load(Manifest, manifest), f"assay-pack-{manifest['nonce'][:8]}"
    first, worker = data.jobs[0], worker_bundle()
    script = run_script(
        run=data.run,
        device=data.device,
        count=len(data.jobs),
        result=result_name(data.nonce),
        python=first.python,
        bundle=first.bundle,
        bundles=data.bundles,
        worker_sha256=worker.sha256,
        manifest_sha256=sha256_of(manifest),
    )
    small = {
        MANIFEST_FILE: canonical(manifest),
        START: BOOTSTRAP.encode(),
        WORKER: worker.data,
        "run.sh": script.encode(),
    }
    large = {f"cache/{s[:2]}/{s}": Path(p) for order in orders for s, p in order.blobs.items()}
    for order in orders:
        if order.bundle is not None:
            large[f"{BUNDLES}/{order.bundle.sha256[:16]}.tar.gz"] = Path(order.bundle.path)
    try:
        with (
            path.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for name in sorted({*small, *large}):
                info = tarfile.TarInfo(f"{top}/{name}")
                info.mode = 0o755 if name == "run.sh" else 0o644
                if name in small:
                    info.size = len(small[name])
                    tar.addfile(info, io.BytesIO(small[name]))
                else:
                    info.size = large[name].stat().st_size
                    with large[name].open("rb") as content:
                        tar.addfile(info, content)
        with path.open("rb+") as done:
            os.fsync(done.fileno())
            return hashlib.file_digest(done, "sha256").hexdigest()
    except OSError as error:
        raise _unwritable(error, path) from error


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """A file in ``folder`` to write the archive to; nothing is left under its name."""
    part = folder / f".assay-pack-{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise _unwritable(error, folder) from error
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _unwritable(error: OSError, path: Path) -> InputError:
    return InputError(
        "E-PACK-WRITE",
        f"the archive cannot be written: {error.strerror}",
        where=str(path.parent if path.suffix == ".part" else path),
        fix="choose another folder with --out",
    )
