"""Facts and sensors of the virtual boards and the emulated phone, each as its own class tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_worker import wire
from orchestrator.devices.bundle import worker_bundle
from orchestrator.devices.facts import read_facts
from orchestrator.matrix.device_class import DeviceClass, load_class, load_classes, recognise
from orchestrator.matrix.inventory import Device
from orchestrator.matrix.loader import load_inventories
from orchestrator.transports import open_transport
from orchestrator.transports.base import Transport

INVENTORY = Path(__file__).parents[2] / "matrices" / "inventories" / "lab.yaml"
DEVICES = {device.name: device for device in load_inventories((INVENTORY,)).devices}
PHONE = pytest.param("qemu-phone", "android-arm64", marks=pytest.mark.phone)
BOARDS = [
    pytest.param(name, kind, marks=pytest.mark.farm)
    for name, kind in [("qemu-a72", "generic-arm64"), ("qemu-haswell", "x86-64"),
                       ("qemu-armhf", "generic-armhf")]
]  # fmt: skip


@contextmanager
def opened(name: str) -> Iterator[tuple[Transport, Device]]:
    with open_transport(DEVICES[name].transport, device=name) as transport:
        yield transport, DEVICES[name]


def class_of(name: str) -> DeviceClass:
    found = load_class(name)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "kind"), [*BOARDS, PHONE])
def test_a_device_is_recognised_through_its_own_shell_alone(name: str, kind: str) -> None:
    with opened(name) as (transport, _):
        facts = read_facts(transport, class_of("generic").facts, timeout=120)
    machine = facts.get("machine")
    assert recognise(facts.values(), str(machine), load_classes())[0] == kind
    assert isinstance(facts.get("memory"), int)
    assert facts.get("os")
    assert facts.get("coral_usb") is None, "missing is not empty"


@pytest.mark.phone
def test_a_phone_tells_its_heat_and_its_battery_as_facts() -> None:
    with opened("qemu-phone") as (transport, _):
        facts = read_facts(transport, class_of("android-arm64").facts, timeout=120)
    assert facts.get("supply/mains") in (0, 1)
    assert isinstance(facts.get("battery/level"), float)
    assert isinstance(facts.get("status/thermal"), int)
    assert {f.source for f in facts.facts} >= {"getprop", "dumpsys thermalservice"}


LOOK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from device_worker import wire
from device_worker.telemetry.sensors import Sensors
sources = [wire.load(wire.Source, source) for source in json.loads(sys.argv[2])]
with Sensors(sources) as sensors:
    for t_s in (0.0, 0.5):
        reading = sensors.read(t_s, fresh=True)
    print(json.dumps([reading.values, sensors.lost]))
"""


@pytest.mark.parametrize(("name", "kind"), BOARDS)
def test_a_boards_own_python_reads_the_sensors_of_its_class(
    name: str, kind: str, tmp_path: Path
) -> None:
    local = tmp_path / "worker.pyz"
    local.write_bytes(worker_bundle().data)
    sources = [wire.dump(source.source()) for source in class_of(kind).telemetry]
    with opened(name) as (transport, device):
        remote = transport.root() / "look" / worker_bundle().name
        transport.push(local, remote, timeout=120)
        argv = [str(device.interpreter("default")), "-c", LOOK, str(remote), json.dumps(sources)]
        done = transport.run(argv, timeout=240)
        transport.run(["rm", "-f", str(remote)], timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    values, lost = json.loads(done.stdout)
    assert lost == []
    kinds = {name.partition("/")[0] for name in values}
    assert {"temp", "freq", "flags", "mem"} <= kinds
    assert all(value is not None for value in values.values())
