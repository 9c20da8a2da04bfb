"""From nothing to a worker that answers, per kind of device.

Cold, and again on a device that kept what it was given. Cold: no folder of ours there, so the
hermetic bundle (where one is used) and the worker are pushed and unpacked. A device with a delegate
is up when that loads. The virtual units' seconds are an emulator's; the bytes are everybody's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from device_worker import wire
from infra.bundles.build import ensure
from infra.standins import build as standins
from orchestrator.devices.bundle import find_bundle
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.devices.worker import Worker
from orchestrator.matrix.inventory import Device, Inventory, bundle_name
from orchestrator.matrix.loader import load_inventories
from orchestrator.transports import Transport, open_transport
from orchestrator.transports.settings import AdbSettings, LocalSettings, SshSettings
from tests.benchmarks.kit import SkippedError, Table
from tests.support import adbd

ROUNDS, OWNER = 3, f"bench-{os.getpid()}"
INVENTORY = Path(__file__).parents[2] / "matrices" / "inventories" / "lab.yaml"
UNITS = {
    "host": "litert",
    "qemu-a72": "litert",
    "qemu-haswell": "litert",
    "qemu-armhf": "tflite-runtime",
    "qemu-phone": "litert",
    "standin-coral": "litert",
}
"""Unit -> the runtime whose Python is brought up there."""


def run() -> list[Table]:
    inventory: Inventory = load_inventories((INVENTORY,))
    devices = [d for d in map(inventory.device, UNITS) if _up(d)]
    if all(isinstance(d.transport, LocalSettings) for d in devices):
        raise SkippedError("the virtual farm is not up (make farm)")
    standins.build()
    seconds = Table("bring-up: link, Python, worker, first answer or delegate", "s")
    sent = Table("bytes sent in it", "MB")
    for device in devices:
        _measure(device, UNITS[device.name], seconds, sent)
    sent.note("aim for warm: 0")
    return [seconds, sent]


def _up(device: Device) -> bool:
    match device.transport:
        case SshSettings(host=host, port=port):
            return adbd.listens(host, port or 22)
        case AdbSettings(serial=serial):
            host, _, port_text = serial.partition(":")
            return adbd.listens(host, int(port_text))
    return True


def _measure(device: Device, runtime: str, seconds: Table, sent: Table) -> None:
    python = device.interpreter(runtime)
    assert python is not None, "UNITS names what each has"
    name = bundle_name(python)
    if name is not None:
        ensure(name)
    bundle = None if name is None else find_bundle(name)
    root = f"{device.transport.root}-bench-{os.getpid()}"
    settings = device.transport.model_copy(update={"root": root})
    taken: dict[str, list[float]] = {"cold": [], "warm": []}
    bytes_: dict[str, list[float]] = {"cold": [], "warm": []}
    token = 0
    try:
        for _ in range(ROUNDS):
            with open_transport(settings, device=device.name) as link:
                _remove(link)
            for kind in taken:
                token += 1
                begin = time.perf_counter()
                link = open_transport(settings, device=device.name)
                with DeviceSession(link, device=device.name, owner=OWNER, token=token,
                                   limits=Limits()) as session:  # fmt: skip
                    _bring_up(session.worker(python, device.env, bundle), device, runtime)
                    pushed = session.bytes_pushed
                taken[kind].append(time.perf_counter() - begin)
                bytes_[kind].append(pushed / 1e6)
    finally:
        with open_transport(settings, device=device.name) as link:
            _remove(link)
    for kind in taken:
        what = f"{device.name} ({device.transport.type}{', ' + name if name else ''}), {kind}"
        seconds.add(what, taken[kind])
        sent.add(what, bytes_[kind])


def _bring_up(worker: Worker, device: Device, runtime: str) -> None:
    worker.ask("noop", timeout=120.0)
    for name, spec in device.delegates.items():
        asked = wire.Delegate(name, spec.library, dict(spec.options), spec.sha256)
        worker.ask("probe", runtime=runtime, delegate=wire.dump(asked), timeout=120.0)


def _remove(link: Transport) -> None:
    link.run(["rm", "-rf", str(link.root())], timeout=120.0)
