"""The thermal protocol through a hub and a real worker, on sensors that are files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from device_worker import wire
from orchestrator.coordinator.jobs import record
from orchestrator.devices.session import Limits
from orchestrator.fanout.hub import Hub
from orchestrator.results.finished import Finished
from orchestrator.store.artefacts import Artefacts
from tests.support.orders import Bench, refused


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path / "spool")
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Device:
    """A folder that stands for /sys: a zone, a battery."""

    def __init__(self, folder: Path) -> None:
        self.zone, self.supply = folder / "thermal_zone0", folder / "BAT0"
        for path in (self.zone, self.supply):
            path.mkdir(parents=True)
        (self.supply / "type").write_text("Battery\n")
        self.set(40, 80)
        self.sources = [
            wire.Source("thermal_zones", [f"{self.zone}/*"]),
            wire.Source("power_supply", [f"{self.supply}/*"]),
        ]

    def set(self, celsius: float | None = None, charge: int | None = None) -> None:
        for path, value in (
            (self.zone / "temp", None if celsius is None else int(celsius * 1000)),
            (self.supply / "capacity", charge),
        ):
            if value is not None:
                part = path.parent.with_suffix(".part")
                part.write_text(f"{value}\n")
                part.replace(path)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "sys")


def gated(hub: Hub, bench: Bench, device: Device, settle: float = 0.0) -> Finished:
    order = bench.order("a", sources=device.sources)
    finished = hub.run(replace(order, max_start_c=60.0, min_battery=30.0, settle_s=settle))
    bench.check(finished)
    return finished


def test_the_gate_reads_the_devices_own_sources(hub: Hub, bench: Bench, device: Device) -> None:
    assert gated(hub, bench, device).timing_notes == ()
    device.set(61.5, 29)
    assert gated(hub, bench, device).timing_notes == (
        "started at 29 % battery, under the limit of 30 %",
        "started at 61.5 °C, over the limit of 60 °C",
    )


@pytest.mark.parametrize("text", ["98", "480", "0"])
def test_a_temperature_that_cannot_be_shows_no_gate_to_be_met(
    hub: Hub, bench: Bench, device: Device, text: str
) -> None:
    (device.zone / "temp").write_text(f"{text}\n")
    finished = gated(hub, bench, device)
    assert finished.timing_notes == (
        "start temperature unknown: cannot be shown to be under 60 °C",
    )
    assert finished.result is not None
    (note,) = finished.result["notes"]
    assert note.startswith("temp/thermal_zone0 reads ")


def test_the_gate_holds_back_until_the_device_is_cool(
    hub: Hub, bench: Bench, device: Device
) -> None:
    device.set(75)
    timer = threading.Timer(3.0, lambda: device.set(50))
    timer.start()
    try:
        finished = gated(hub, bench, device, settle=120.0)
    finally:
        timer.join()
    assert finished.timing_notes == ()
    assert finished.result is not None
    assert finished.result["telemetry"]["start"]["temp/thermal_zone0"] == 50


def test_the_ceiling_is_trouble_that_another_attempt_may_escape(
    hub: Hub, bench: Bench, device: Device
) -> None:
    device.set(90)
    order = bench.order("a", sources=device.sources, ceiling_c=80.0)
    assert refused(hub.run(order)) == ("infra_error", "E-CEILING", True)
    assert not list((bench.root("a") / "out").glob("*")), "nothing is left on the device"
    device.set(70)
    bench.check(hub.run(bench.order("a", sources=device.sources, ceiling_c=80.0)))


def test_a_temperature_that_is_lost_travels_with_the_result(
    hub: Hub, bench: Bench, tmp_path: Path
) -> None:
    tool, asked = tmp_path / "vcgencmd", tmp_path / "asked"
    tool.write_text(f'#!/bin/sh\n[ -e {asked} ] && exit 1\n: > {asked}\necho "temp=30.0\'C"\n')
    tool.chmod(0o755)
    source = wire.Source("vcgencmd_temp", command=[str(tool)], timeout_s=20.0)
    finished = hub.run(bench.order("a", sources=[source], ceiling_c=80.0, telemetry_hz=0.0))
    bench.check(finished)
    kept = record(finished, Artefacts(tmp_path / "store"))
    assert (kept.codes_valid, kept.timing_valid) == (True, False)
    assert kept.result is not None
    assert kept.result["telemetry"]["reasons"] == ["temperature unknown in 1 of 2 readings"]


def test_a_soak_comes_back_whole(hub: Hub, bench: Bench, device: Device) -> None:
    device.set(76)
    soak = wire.Soak(target_c=75.0, hold_s=0.3, heat_s=60.0)
    finished = hub.run(bench.order("a", sources=device.sources, soak=soak))
    bench.check(finished)
    assert finished.result is not None
    assert finished.result["soak"]["reached"]
    assert finished.result["soak"]["mismatches"] == 0
    assert finished.result["soak"]["inferences"] > 5


def test_each_order_has_its_own_deadline(hub: Hub, bench: Bench) -> None:
    """A soak may take longer than the cell before it on the same session."""
    bench.check(hub.run(bench.order("a", limits=Limits(60.0, 30.0))))
    late = hub.run(bench.order("a", limits=Limits(1.0, 30.0), repeat=10**8))
    assert refused(late)[:2] == ("timeout", "E-CELL-TIMEOUT")


def test_what_is_not_covered_says_which_limit(hub: Hub, bench: Bench) -> None:
    order = replace(bench.order("a"), unavailable="too hot", unavailable_id="E-SOAK-CEILING")
    assert refused(hub.run(order)) == ("not_available", "E-SOAK-CEILING", False)
    assert not bench.root("a").exists(), "nobody was asked"


def test_a_timed_out_power_mode_is_put_back_by_the_next_job(
    hub: Hub, bench: Bench, tmp_path: Path
) -> None:
    governor = tmp_path / "governor"
    governor.write_text("ondemand\n")
    mode = wire.PowerMode(
        "save",
        wire.Source("governor", [str(governor)]),
        "powersave",
        [["write", str(governor), "powersave"]],
    )
    late = bench.order("a", limits=Limits(4.0, 30.0), repeat=10**8, power=mode)
    assert refused(hub.run(late))[1] == "E-CELL-TIMEOUT"
    bench.check(hub.run(bench.order("a")))
    assert governor.read_text() == "ondemand\n"
