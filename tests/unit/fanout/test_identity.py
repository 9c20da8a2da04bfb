"""A unit that is not the one of the inventory gets no work. It is asked once a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.devices.identity import Identity, compared, expected
from orchestrator.fanout.hub import Hub
from orchestrator.fanout.hub_job import Order
from orchestrator.matrix.device_class import SourceSpec, load_class
from orchestrator.matrix.inventory import Device
from orchestrator.transports import AdbSettings
from orchestrator.transports.adb import AdbServer
from tests.support import adbd
from tests.support.adb_front import Front
from tests.support.orders import Bench, refused

MACHINE = os.uname().machine


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path / "spool")
    yield made
    made.close()


def known_as(order: Order, facts: dict[str, str], *sources: SourceSpec) -> Order:
    return replace(order, target=replace(order.target, identity=Identity(facts, sources)))


def counting(asked: Path) -> SourceSpec:
    """`uname`, which leaves a line in ``asked`` each time."""
    words = ("sh", "-c", f"echo asked >> {asked}; uname -srm")
    return SourceSpec(parser="uname", command=words)


def test_the_right_unit_is_asked_once_a_session(hub: Hub, bench: Bench, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    for _ in range(2):
        bench.check(hub.run(known_as(bench.order("d"), {"machine": MACHINE}, counting(asked))))
    assert asked.read_text().split() == ["asked"]
    hub.let_go("d")
    bench.check(hub.run(known_as(bench.order("d"), {"machine": MACHINE}, counting(asked))))
    assert asked.read_text().split() == ["asked"] * 2


def test_where_nothing_is_recorded_nothing_is_asked(hub: Hub, bench: Bench, tmp_path: Path) -> None:
    bench.check(hub.run(known_as(bench.order("d"), {}, counting(tmp_path / "asked"))))
    assert not (tmp_path / "asked").exists()


def test_another_unit_is_refused_and_nothing_is_sent_there(
    hub: Hub, bench: Bench, tmp_path: Path
) -> None:
    order = known_as(bench.order("d"), {"machine": "vax"}, counting(tmp_path / "asked"))
    finished = hub.run(order)
    assert refused(finished) == ("infra_error", "E-DEVICE-IDENTITY", False)
    assert finished.failure is not None
    assert f"its machine is {MACHINE}, not vax" in finished.failure.text
    assert finished.failure.text.startswith("d: ")
    assert list(bench.root("d").iterdir()) == [], "neither worker nor lease"
    bench.check(hub.run(bench.order("d")))


@pytest.mark.parametrize("sources", [0, 1])
def test_a_fact_that_cannot_be_read_is_no_proof(
    hub: Hub, bench: Bench, tmp_path: Path, sources: int
) -> None:
    wanted = {"serial": "10000000abc"}
    finished = hub.run(
        known_as(bench.order("d"), wanted, *[counting(tmp_path / "asked")][:sources])
    )
    assert refused(finished) == ("infra_error", "E-DEVICE-IDENTITY", False)
    assert finished.failure is not None
    assert "its serial cannot be read" in finished.failure.text


def test_only_the_sources_of_the_recorded_facts_are_asked() -> None:
    said = {
        "name": "p",
        "class": "android-arm64",
        "transport": {"type": "adb", "serial": "S"},
        "python": {"default": "python3"},
    }
    profile = load_class("android-arm64")
    known = Device.model_validate({**said, "identity": {"fingerprint": "f", "machine": "m"}})
    found = expected(known.model_copy(update={"profile": profile}))
    assert found.facts == {"fingerprint": "f", "machine": "m"}
    assert [source.parser for source in found.sources] == ["getprop", "uname"]
    nobody = Device.model_validate(said).model_copy(update={"profile": profile})
    assert expected(nobody) == Identity()


def test_comparison() -> None:
    wanted = {"serial": "7", "os": "a", "soc": "x"}
    assert compared(wanted, {"serial": 7, "os": "b", "soc": None}) == (
        ("its os is b, not a",),
        ("soc",),
    )
    assert compared({}, {"serial": "7"}) == ((), ())


@pytest.mark.adbd
def test_a_phone_keeps_its_place_as_long_as_it_is_leased(
    hub: Hub, bench: Bench, tmp_path: Path
) -> None:
    """The inventory names no `usb`, and its link broke between two attempts."""

    def line(usb: str) -> str:
        return f"R58M1  device {usb} product:p model:M device:d transport_id:{number}"

    def ordered(settings: AdbSettings, token: int = 1) -> Order:
        order = bench.order("phone", token=token)
        return replace(order, target=replace(order.target, transport=settings))

    with adbd.running(tmp_path / "adbd") as device:
        real = AdbServer(port=device.server_port)
        real.connect(f"127.0.0.1:{device.port}", 20)
        number = real.devices()[0].transport_id
        with Front(device.server_port) as front:
            front.show(line("usb:1-1"))
            settings = device.settings(serial="R58M1", server_port=front.port)
            bench.check(hub.run(ordered(settings)))
            front.show()
            assert refused(hub.run(ordered(settings)))[::2] == ("infra_error", True)
            front.show(line("usb:2-3"))
            moved = hub.run(ordered(settings))
            assert refused(moved) == ("infra_error", "E-ADB-IDENTITY", False)
            assert moved.failure is not None
            assert "at usb:2-3, not at usb:1-1" in moved.failure.text
            front.show(line("usb:1-1"))
            bench.check(hub.run(ordered(settings)))
            # Another lease: whoever plugged it in elsewhere meanwhile meant to.
            hub.let_go("phone")
            front.show(line("usb:2-3"))
            bench.check(hub.run(ordered(settings, token=2)))
            hub.let_go("phone")
