"""What watching a board costs it, relative to the inference it is watched at.

CPU seconds of the worker's process, by the kernel's own count, because the boards share two cores.
Emulated, where reading a file costs as much more as inference does: the ratio means something, the
seconds do not. Paired: each turn runs every rate once on the same warm worker.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path

from device_worker import wire
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.devices.worker import Worker
from orchestrator.matrix.inventory import Device
from orchestrator.run import plan
from orchestrator.runs.staged import Staging
from orchestrator.staging.stage import here, stage
from orchestrator.store.database import Store
from orchestrator.transports import Transport, open_transport
from tests.benchmarks.kit import SkippedError, Table, ratios
from tests.support import adbd

MATRIX = Path(__file__).parents[2] / "matrices" / "virtual-farm.yaml"
BOARDS = ("qemu-a53", "qemu-a72", "qemu-haswell")
RATES = (0.0, 2.0, 10.0)
TURNS = 5
SAMPLES = 400
TICKS = 100.0
"""Clock ticks a second in /proc/PID/stat: USER_HZ, the same on every Linux we know."""
KEY, INPUTS, RUNTIME = "digits_ds.int8", "digits32", "litert"


def run() -> list[Table]:
    planned = plan(MATRIX, [f"{board}-digits_ds.int8-*-clean-litert" for board in BOARDS])
    devices = [planned.inventory.device(name) for name in BOARDS]
    up = [d for d in devices if d.transport.type == "ssh" and _up(d)]
    if not up:
        raise SkippedError("the virtual boards are not up (make farm)")
    with (
        tempfile.TemporaryDirectory(prefix="assay-bench-") as name,
        Store.open(Path(name) / "store") as store,
    ):
        staging = stage(planned.matrix, planned.cells, store.artefacts, here, planned.where)
        title = f"CPU time of {SAMPLES} samples while watched, over the two end readings only"
        table = Table(title, "ratio")
        for device in up:
            _measure(table, device, staging, store)
    table.note(f"{KEY} on {RUNTIME}; sources are those of each board's class")
    table.note("1.00: watching costs nothing that can be measured")
    return [table]


def _up(device: Device) -> bool:
    transport = device.transport
    return transport.type == "ssh" and adbd.listens(transport.host, transport.port or 22)


def _measure(table: Table, device: Device, staging: Staging, store: Store) -> None:
    taken: dict[float, list[float]] = {rate: [] for rate in RATES}
    plain = replace(staging.job("", KEY, INPUTS, wire.RuntimeSpec(RUNTIME)), samples=SAMPLES)
    sources = [s.source() for s in device.profile.telemetry] if device.profile else []
    blobs = [plain.model, *(tensor.blob for tensor in plain.inputs)]
    link = open_transport(device.transport, device=device.name)
    with DeviceSession(
        link,
        device=device.name,
        owner=f"bench-{os.getpid()}",
        token=1,
        limits=Limits(),
    ) as session:
        worker = session.worker(device.interpreter(RUNTIME) or "python3")
        session.ensure(worker, {b.sha256: store.artefacts.path(b.sha256) for b in blobs})
        for turn in range(-1, TURNS):
            for i in range(len(RATES)):
                rate = RATES[(turn + i) % len(RATES)]
                job = replace(plain, attempt=uuid.uuid4().hex, telemetry_hz=rate, sources=sources)
                before = _cpu_s(link, worker)
                with tempfile.TemporaryDirectory(prefix="assay-bench-") as into:
                    session.run(worker, job, Path(into))
                if turn >= 0:
                    taken[rate].append(_cpu_s(link, worker) - before)
    for rate in RATES[1:]:
        table.add(f"{device.name}, {rate:g} Hz", ratios(taken[rate], taken[RATES[0]]))
    shortest = min(taken[RATES[0]])
    table.note(f"{device.name}: {shortest:.2f} s of CPU unwatched, {len(sources)} sources")


def _cpu_s(link: Transport, worker: Worker) -> float:
    """User and system time of the worker and its ended children: fields 14 to 17, proc(5)."""
    done = link.run(["cat", f"/proc/{worker.hello['pid']}/stat"], timeout=60.0)
    fields = done.stdout.decode().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS
