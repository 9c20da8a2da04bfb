"""Devices that cannot be used, servers that are somebody else's, units that change places."""

from __future__ import annotations

import functools
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.errors import AssayError, InfraError
from orchestrator.transports import AdbSettings, adb_reach, open_transport
from orchestrator.transports.adb import AdbServer, Tracker, list_devices
from orchestrator.transports.adb_server import client_version
from tests.support import adbd, mini_adbd
from tests.support.adb_front import Front
from tests.support.cli import until
from tests.support.clock import PATIENCE

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb here: install adb")


def failure(call: Callable[[], object]) -> AssayError:
    with pytest.raises(AssayError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


def entering(settings: AdbSettings) -> AssayError:
    def enter() -> None:
        with open_transport(settings, device="phone-1"):
            pass

    return failure(enter)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with adbd.server(tmp_path_factory.mktemp("server")) as port:
        yield port


# Devices that answer and cannot be used.


@needs_adb
@pytest.mark.parametrize(
    ("mode", "id"),
    [
        ("unauthorized", "E-ADB-UNAUTHORIZED"),
        ("drop", "E-ADB-CONNECT|E-ADB-OFFLINE"),
        ("mute", "E-ADB-CONNECT|E-ADB-OFFLINE"),
        ("old", "E-ADB-OLD"),
    ],
)
def test_what_an_unusable_device_is_called(
    server: int, mode: str, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that says what it is gets all its time for it; one that says nothing misses its own."""
    seconds = 4.0
    if mode in ("unauthorized", "old"):
        seconds = PATIENCE
        monkeypatch.setattr(adb_reach, "SETTLING", PATIENCE)
    with mini_adbd.running(mode) as address:
        settings = AdbSettings(serial=address, server_port=server, connect_timeout=seconds)
        error = entering(settings)
        assert re.fullmatch(id, error.id), error
        AdbServer(port=server).disconnect(address, PATIENCE)


@needs_adb
def test_nobody_at_the_address(server: int) -> None:
    address = f"127.0.0.1:{adbd.free_port()}"
    error = entering(AdbSettings(serial=address, server_port=server))
    assert error.id == "E-ADB-CONNECT"
    assert "refused" in str(error)


@needs_adb
def test_pairing_says_why_not(server: int) -> None:
    """The client is 29 (which cannot) or newer (where nobody listens)."""
    address = f"127.0.0.1:{adbd.free_port()}"
    error = failure(lambda: AdbServer(port=server).pair(address, "123456", PATIENCE))
    assert error.id == "E-ADB-PAIR"


@needs_adb
def test_a_serial_that_nobody_has(server: int) -> None:
    assert entering(AdbSettings(serial="R58M00000", server_port=server)).id == "E-ADB-ABSENT"


@needs_adb
def test_a_device_that_the_usual_server_holds(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Front(None, version=41) as usual:
        monkeypatch.setattr("orchestrator.transports.adb_reach.USUAL_PORT", usual.port)
        usual.show("R58M1  device usb:1-1 transport_id:1")
        error = entering(AdbSettings(serial="R58M1", server_port=server))
        assert error.id == "E-ADB-HELD"
        assert str(usual.port) in str(error)


# Servers.


def test_no_client(tmp_path: Path) -> None:
    for adb in ("assay-no-adb", str(tmp_path), "true"):
        assert failure(functools.partial(list_devices, adb)).id == "E-ADB-MISSING"


@needs_adb
@pytest.mark.parametrize("version", [39, 40, 42])
def test_a_server_of_another_version_is_left_alone(version: int) -> None:
    with Front(None, version=version) as front:
        error = entering(AdbSettings(serial="S", server_port=front.port))
        assert error.id == "E-ADB-SERVER"
        assert f"version {version}" in str(error)
        assert str(client_version("adb")) in str(error)
        assert front.asked == ["host:version"]  # and above all not host:kill


@needs_adb
def test_what_listens_there_is_no_adb_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            link, _ = other.accept()
            with link:
                link.sendall(b"SSH-2.0-x\r\n")

        answer = threading.Thread(target=greet)
        answer.start()
        error = failure(lambda: list_devices(server_port=other.getsockname()[1]))
        answer.join()
        assert error.id == "E-ADB-SERVER"


@needs_adb
def test_a_server_is_started_where_none_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ADB_LOCAL_TRANSPORT_MAX_PORT", "5554")
    port = adbd.free_port()
    try:
        assert list_devices(server_port=port) == []
        assert AdbServer(port=port).version() == client_version("adb")
    finally:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as link:
            link.sendall(b"0009host:kill")
            link.recv(4)


def test_a_server_that_went_away_is_a_link_that_is_down() -> None:
    with Front(None) as front:
        server = AdbServer(port=front.port)
        assert server.devices() == []
    assert failure(server.devices).id == "E-LINK"


# Reports.


def test_reports_in_order_and_after_the_server_came_back() -> None:
    seen: list[tuple[str, ...] | None] = []
    changed = threading.Event()

    def note(report: object) -> None:
        devices = getattr(report, "devices", None)
        seen.append(None if devices is None else tuple(f"{d.serial} {d.state}" for d in devices))
        changed.set()

    def after(change: Callable[[], None]) -> tuple[str, ...] | None:
        changed.clear()
        change()
        assert changed.wait(PATIENCE)
        return seen[-1]

    with Front(None) as front:
        front.show("S  device usb:1-1 transport_id:1")
        with Tracker(AdbServer(port=front.port), note) as tracker:
            first = tracker.wait_for(bool, PATIENCE)
            assert first is not None
            assert first.at <= time.monotonic()
            assert after(lambda: front.show("S  offline usb:1-1 transport_id:1")) == ("S offline",)
            assert after(front.show) == ()
            front.show("S  device usb:2-3 transport_id:2")
            found = tracker.wait_for(
                lambda d: d is not None and [x.usb for x in d] == ["usb:2-3"], PATIENCE
            )
            assert found is not None
            assert found.devices is not None
            assert [d.usb for d in found.devices] == ["usb:2-3"]
            front.cut()
            until(lambda: seen[-2:] == [None, ("S device",)], "it is listed again", PATIENCE)


# Units behind USB: a real adbd, under the name and at the place that the test says.


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[tuple[Front, int, AdbSettings]]:
    """The front, the transport id that leads to a real adbd, settings for usb:1-1."""
    with adbd.running(tmp_path / "adbd") as device:
        real = AdbServer(port=device.server_port)
        real.connect(f"127.0.0.1:{device.port}", PATIENCE)
        (found,) = real.devices()
        assert found.transport_id is not None
        with Front(device.server_port) as front:
            front.show(_line("usb:1-1", found.transport_id))
            settings = device.settings(serial="R58M1", server_port=front.port, usb="usb:1-1")
            yield front, found.transport_id, settings


def _line(usb: str, number: int, state: str = "device") -> str:
    return f"R58M1                  {state} {usb} product:p model:M device:d transport_id:{number}"


@pytest.mark.adbd
def test_a_unit_is_reached_by_serial_and_place(unit: tuple[Front, int, AdbSettings]) -> None:
    front, number, settings = unit
    with open_transport(settings, device="phone-1") as opened:
        assert opened.run(["echo", "x"], timeout=PATIENCE).stdout == b"x\n"
    front.show(_line("usb:1-2", number))
    assert entering(settings).id == "E-ADB-IDENTITY"
    front.show(_line("usb:1-1", number), _line("usb:1-2", 77))
    with open_transport(settings, device="phone-1") as opened:
        assert opened.ping(timeout=PATIENCE) > 0
    assert entering(settings.model_copy(update={"usb": None})).id == "E-ADB-AMBIGUOUS"
    assert not any("kill" in service for service in front.asked)


@pytest.mark.adbd
def test_a_unit_that_vanishes_and_comes_back_elsewhere(
    unit: tuple[Front, int, AdbSettings],
) -> None:
    front, _, settings = unit
    with open_transport(settings, device="phone-1") as opened:
        channel = opened.start(["cat"])
        channel.send(b"x")
        assert channel.read_line(PATIENCE) == b"x"
        front.show()
        error = failure(lambda: channel.read_line(PATIENCE))
        assert error.id == "E-LINK"  # at its deadline it would be E-SILENCE
        assert "unplugged" in str(error)
        front.show(_line("usb:2-3", 77))
        until(
            lambda: failure(lambda: opened.ping(timeout=PATIENCE)).id != "E-LINK",
            "it is plugged in elsewhere",
            PATIENCE,
        )
        error = failure(lambda: opened.ping(timeout=PATIENCE))
        assert error.id == "E-ADB-IDENTITY"
        assert "usb:2-3" in str(error)
        channel.close(0.2)
    assert entering(settings).id == "E-ADB-IDENTITY"


@pytest.mark.adbd
@pytest.mark.parametrize(
    ("state", "id"),
    [("offline", "E-LINK"), ("recovery", "E-ADB-STATE"), ("unauthorized", "E-ADB-UNAUTHORIZED")],
)
def test_a_unit_that_changes_its_state_mid_run(
    unit: tuple[Front, int, AdbSettings], state: str, id: str
) -> None:
    front, number, settings = unit
    with open_transport(settings, device="phone-1") as opened:
        channel = opened.start(["cat"])
        front.show(_line("usb:1-1", number, state))
        assert failure(lambda: channel.read_line(PATIENCE)).id == id
        assert failure(lambda: opened.run(["true"], timeout=PATIENCE)).id == id


@pytest.mark.adbd
def test_a_server_that_is_started_anew_may_give_the_number_to_another(
    unit: tuple[Front, int, AdbSettings],
) -> None:
    front, _, settings = unit
    with open_transport(settings, device="phone-1") as opened:
        front.cut()
        errors: list[AssayError] = []

        def noticed() -> bool:
            try:
                opened.run(["true"], timeout=PATIENCE)
            except AssayError as caught:
                errors.append(caught)
            return bool(errors)

        until(noticed, "the server is missed", PATIENCE)
        assert errors[0].id == "E-LINK"
        # The list is as before, and yet nothing is sent to that number again.
        assert failure(lambda: opened.run(["true"], timeout=PATIENCE)).id == "E-LINK"


def test_pairing(tmp_path: Path) -> None:
    """By a client that can: what it is told, and that it asks no other server than ours."""
    client, said = tmp_path / "adb", tmp_path / "said"
    client.write_text(
        f"""#!/bin/sh
echo "$*" >> {said}
case "$*" in
version) echo "Android Debug Bridge version 1.0.41";;
*" pair 10.0.0.7:37123 482924") echo "Successfully paired to 10.0.0.7:37123 [guid=adb-X-y]";;
*) echo "Failed: Unable to start pairing client.";;
esac
"""
    )
    client.chmod(0o755)
    with Front(None, version=41) as front:
        server = AdbServer(str(client), front.port)
        told = server.pair("10.0.0.7:37123", "482924", PATIENCE)
        assert told == "Successfully paired to 10.0.0.7:37123 [guid=adb-X-y]"
        wrong = failure(lambda: server.pair("10.0.0.7:37123", "000000", PATIENCE))
        assert isinstance(wrong, InfraError)
        assert (wrong.id, wrong.retryable) == ("E-ADB-PAIR", False)
        assert "Unable to start pairing client" in str(wrong)
    pairs = [line for line in said.read_text().splitlines() if "pair" in line]
    assert pairs == [f"-P {front.port} pair 10.0.0.7:37123 {code}" for code in ("482924", "000000")]
