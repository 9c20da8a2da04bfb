"""Proposals from address ranges with real sshds in them, and from what an adb server sees."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.devices import scan
from orchestrator.devices.scan import MOST, Found, Login, scan_adb, scan_range, wanted
from orchestrator.errors import InfraError, InputError
from orchestrator.matrix.device_class import load_classes
from orchestrator.matrix.inventory import Device, Inventory
from orchestrator.matrix.loader import load_inventories
from orchestrator.reports.proposals import rendered
from orchestrator.transports.adb import AdbServer
from orchestrator.transports.adb_server import client_version
from tests.support import adbd, mini_adbd, sshd
from tests.support.adb_front import Front

TRUSTED, STRANGE, KNOWN, OTHER = "127.77.5.3", "127.77.5.6", "127.77.5.9", "127.77.5.12"
needs_sshd = pytest.mark.skipif(sshd.MISSING is not None, reason=sshd.MISSING or "")
needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb here")


@dataclass
class Net:
    """An sshd on three addresses; ``hosts`` knows its key under two of them."""

    server: sshd.Sshd
    hosts: Path

    def login(self, **changes: object) -> Login:
        key = str(self.server.folder / "client_key")
        allowed = {"user": "root", "key": key, "known_hosts": str(self.hosts)}
        return Login(**{**allowed, **changes})  # type: ignore[arg-type]

    def scan(self, login: Login, devices: tuple[Device, ...] = ()) -> dict[str, Found]:
        found = scan_range(
            wanted(["127.77.5.0/28"]), self.server.port, login, devices, load_classes()
        )
        return {one.address.partition(":")[0]: one for one in found}


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    extra = ["Subsystem sftp internal-sftp", f"ListenAddress {TRUSTED}"]
    extra += [f"ListenAddress {address}" for address in (STRANGE, KNOWN)]
    with sshd.running(tmp_path / "sshd", extra="\n".join(extra)) as server:
        public = (server.folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
        hosts = tmp_path / "hosts"
        hosts.write_text(f"[{TRUSTED}]:{server.port},[{KNOWN}]:{server.port} {public}\n")
        yield Net(server, hosts)


def loaded(found: list[Found], folder: Path) -> Inventory:
    """What was proposed, read as an inventory file."""
    path = folder / "proposed.yaml"
    path.write_text(rendered(found, 14))
    return load_inventories((path,))


@needs_sshd
def test_a_range_with_devices_known_new_and_not_yet_trusted(net: Net, tmp_path: Path) -> None:
    listed = Device.model_validate(
        {
            "name": "desk-9",
            "class": "x",
            "transport": {"type": "ssh", "host": KNOWN, "port": net.server.port},
            "python": {"default": "python3"},
        }
    )
    with socket.create_server((OTHER, net.server.port)):
        found = net.scan(net.login(), (listed,))
    assert list(found) == [TRUSTED, STRANGE, KNOWN, OTHER]

    trusted = found[TRUSTED]
    assert trusted.error is None
    assert trusted.facts is not None
    assert trusted.facts["machine"] == os.uname().machine
    assert trusted.classes[-1] == "generic"
    assert trusted.entry is not None
    assert trusted.entry["transport"]["host"] == TRUSTED

    strange = found[STRANGE]
    assert strange.facts is None
    assert strange.entry is not None
    assert any("devices trust" in note and "SHA256:" in note for note in strange.notes)

    assert (found[KNOWN].known, found[KNOWN].entry) == ("desk-9", None)
    assert (found[OTHER].entry, found[OTHER].error) == (None, None)

    devices = loaded(list(found.values()), tmp_path).devices
    assert [d.transport.host for d in devices if d.transport.type == "ssh"] == [TRUSTED, STRANGE]
    text = (tmp_path / "proposed.yaml").read_text()
    assert "is desk-9 of the inventory" in text
    assert "4 found of 14 addresses: 1 known, 2 proposed" in text


@needs_sshd
def test_nobody_is_logged_in_to_unless_that_is_allowed(net: Net) -> None:
    found = net.scan(net.login(key=None))[TRUSTED]
    assert found.facts is None
    assert found.entry is not None
    assert any("not logged in" in note for note in found.notes)
    log = (net.server.folder / "sshd.log").read_text()
    assert "Accepted" not in log
    assert "Failed" not in log


@needs_sshd
def test_a_refused_login_and_a_changed_key_are_said(net: Net, tmp_path: Path) -> None:
    sshd.keygen(tmp_path / "stranger")
    refused = net.scan(net.login(key=str(tmp_path / "stranger")))[TRUSTED]
    assert (refused.error, refused.facts) == ("E-SSH-AUTH", None)
    assert refused.entry is not None
    other = (tmp_path / "stranger.pub").read_text().rsplit(" ", 1)[0]
    net.hosts.write_text(f"[{TRUSTED}]:{net.server.port} {other}\n")
    changed = net.scan(net.login())[TRUSTED]
    assert (changed.error, changed.entry) == ("E-SSH-HOSTKEY", None)


def test_addresses() -> None:
    assert wanted(["10.0.0.4/30", "10.0.0.5", "10.0.0.8-10.0.0.10"]) == [
        *("10.0.0.5", "10.0.0.6"),
        *("10.0.0.8", "10.0.0.9", "10.0.0.10"),
    ]
    assert wanted(["::1", "10.0.0.1/32"]) == ["::1", "10.0.0.1"]
    assert len(wanted(["10.0.0.0-10.0.3.255"])) == MOST
    assert wanted([]) == []


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0/8", "10.0.0.0-10.0.4.0", "::/0", "pi.local", "", "10.0.0.9-10.0.0.1", "1.2.3.4-::1"],
)
def test_no_range_or_too_large_a_one(text: str) -> None:
    with pytest.raises(InputError) as refused:
        wanted([text])
    assert refused.value.id == "E-SCAN-RANGE"


@needs_adb
def test_a_phone_that_lets_nobody_in_is_listed_with_its_fix(tmp_path: Path) -> None:
    with adbd.server(tmp_path) as port, mini_adbd.running("unauthorized") as address:
        adbd_connect(port, address)
        (found,) = scan_adb("adb", port, (), load_classes())
    assert (found.address, found.entry, found.error) == (address, None, "E-ADB-UNAUTHORIZED")
    assert "unlock" in (found.fix or "")
    assert f"# adb {address}" in rendered([found], 0)


ODD = """\
(no serial number)     device usb:2-1.2.5 product:cm_w7 model:LG_D415 device:w7 transport_id:6
-s                     device usb:1-9 transport_id:16
adb-2A1-vW (2)._adb-tls-connect._tcp device product:p model:Pixel_7 device:d transport_id:17
????????????           no permissions (user in plugdev group); see [http://x] usb:1-4 transport_id:7
0123456789ABCDEF       unauthorized usb:1-3 transport_id:1
0123456789ABCDEF       recovery 1-5 transport_id:2
R58M1                  fastbootd usb:1-6 transport_id:3
R58M2                  device 3-1 newword product:p transport_id:8
10.0.0.7:5555          device
"""


@needs_adb
def test_each_odd_unit_is_a_line_of_its_own_and_keeps_no_other_from_being_listed() -> None:
    with Front(None, version=client_version("adb")) as front:
        front.show(*ODD.splitlines())
        found = scan_adb("adb", front.port, (), load_classes())
    assert [one.error for one in found] == [
        *["E-ADB-SERIAL"] * 3,
        *("E-ADB-PERMISSION", "E-ADB-UNAUTHORIZED", "E-ADB-STATE", "E-ADB-STATE"),
        "E-LINK",  # ready, and asked: nobody is behind this server
        "E-ADB-SERVER",
    ]
    text = rendered(found, 0)
    assert len(text.splitlines()) == len(found) + 1
    assert all(line.startswith("# adb ") for line in text.splitlines()[:-1])
    assert all(one.fix for one in found), "each says what to do"
    assert "# adb R58M2: device newword usb:3-1" in text


@pytest.mark.adbd
def test_a_device_that_is_ready_is_proposed_unless_it_is_listed(tmp_path: Path) -> None:
    with adbd.running(tmp_path / "adbd") as device:
        address = f"127.0.0.1:{device.port}"
        adbd_connect(device.server_port, address)
        (found,) = scan_adb("adb", device.server_port, (), load_classes())
        (entry,) = loaded([found], tmp_path).devices
        (again,) = scan_adb("adb", device.server_port, (entry,), load_classes())
    assert found.facts is not None
    assert found.facts["machine"] == os.uname().machine
    assert entry.transport.type == "adb"
    assert (entry.transport.serial, entry.transport.server_port) == (address, device.server_port)
    assert (again.known, again.entry) == (entry.name, None)


def adbd_connect(port: int, address: str) -> None:
    """One that wants its user's consent counts as a failure for adb, and is listed all the same."""
    with contextlib.suppress(InfraError):
        AdbServer("adb", port).connect(address, 20)


@pytest.mark.adbd
def test_a_phone_is_proposed_with_its_port_and_its_build(tmp_path: Path) -> None:
    """So that neither another phone in its place nor another build on it goes unnoticed."""
    with adbd.running(tmp_path / "adbd") as device:
        real = AdbServer(port=device.server_port)
        real.connect(f"127.0.0.1:{device.port}", 20)
        (there,) = real.devices()
        with Front(device.server_port) as front:
            front.show(f"R58M1  device usb:1-1 transport_id:{there.transport_id}")
            (found,) = scan_adb("adb", front.port, (), load_classes())
            (entry,) = loaded([found], tmp_path).devices
            front.show(f"R58M1  device usb:1-2 transport_id:{there.transport_id}")
            (elsewhere,) = scan_adb("adb", front.port, (entry,), load_classes())
    assert entry.transport.type == "adb"
    assert (entry.transport.serial, entry.transport.usb) == ("R58M1", "usb:1-1")
    assert entry.identity["fingerprint"] == adbd.FINGERPRINT
    assert elsewhere.known is None


def test_a_fact_that_its_class_never_tells_is_not_proposed(tmp_path: Path) -> None:
    facts = {"serial": "1424", "fingerprint": "x", "hardware": "NVIDIA Jetson"}
    seen = scan._Seen(facts, ("jetson-orin", "generic"))
    found = Found("ssh", "10.0.0.9", "SSH-2.0")
    settings = {"type": "ssh", "host": "10.0.0.9"}
    proposed = scan._proposed(found, settings, seen, load_classes())
    (entry,) = loaded([proposed], tmp_path).devices
    assert entry.identity == {"serial": "1424"}
