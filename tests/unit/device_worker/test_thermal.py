"""Ceiling, soak and clock jumps, on sensors that are files which move while a job runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_worker import soak as soak_module
from device_worker import wire
from device_worker.arrays import Array
from device_worker.guard import Clock, Guard
from device_worker.telemetry import plausible
from device_worker.telemetry.sensors import Reading, hottest
from tests.unit.device_worker.test_measure import Bench, same


class Zone:
    """A thermal zone below a folder, and the source that finds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "thermal_zone0"
        self.folder.mkdir(parents=True)
        (self.folder / "type").write_text("cpu\n")

    @property
    def source(self) -> wire.Source:
        return wire.Source("thermal_zones", [f"{self.folder.parent}/thermal_zone*/*"])

    def set(self, celsius: float | str) -> None:
        text = celsius if isinstance(celsius, str) else str(int(celsius * 1000))
        part = self.folder / ".temp"
        part.write_text(text + "\n")
        part.replace(self.folder / "temp")


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    made = Zone(tmp_path / "sys")
    made.set(40)
    return made


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    root = tmp_path / "root"
    root.mkdir()
    return Bench(root, monkeypatch)


def slow(call: int, x: Array) -> list[Any]:
    time.sleep(0.002)
    return [np.negative(x)]


def heating(zone: Zone, step: float, at: float = 40.0) -> Callable[[int, Array], list[Any]]:
    """Every call warms the device, as far as 70 °C."""

    def compute(call: int, x: Array) -> list[Any]:
        zone.set(min(at + step * call, 70.0))
        return slow(call, x)

    return compute


@pytest.fixture
def later() -> Iterator[Callable[[float, Callable[[], None]], None]]:
    timers: list[threading.Timer] = []

    def start(seconds: float, do: Callable[[], None]) -> None:
        timers.append(threading.Timer(seconds, do))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.cancel()
        timer.join()


# Ceiling -------------------------------------------------------------------------------------


def test_the_ceiling_stops_a_run_and_leaves_nothing(
    bench: Bench, zone: Zone, later: Callable[[float, Callable[[], None]], None]
) -> None:
    runtime = bench.script(slow)
    later(0.3, lambda: zone.set(81))
    plan: dict[str, Any] = {"repeat": 10**6, "telemetry_hz": 50.0, "ceiling_c": 80.0}
    assert bench.fails(sources=[zone.source], **plan) == ("infra_error", "E-CEILING")
    assert runtime.closed
    assert runtime.calls < 10**6


def test_a_device_above_the_ceiling_is_not_heated_further(bench: Bench, zone: Zone) -> None:
    zone.set(90)
    runtime = bench.script(same)
    assert bench.fails(sources=[zone.source], ceiling_c=80.0) == ("infra_error", "E-CEILING")
    assert runtime.calls == 3, "two to warm up, one before the first look"


def test_the_ceiling_holds_while_soaking(bench: Bench, zone: Zone) -> None:
    bench.script(heating(zone, 0.5))
    soak = wire.Soak(target_c=75.0, hold_s=60.0, heat_s=60.0)
    plan: dict[str, Any] = {"soak": soak, "ceiling_c": 65.0, "telemetry_hz": 50.0}
    assert bench.fails(sources=[zone.source], **plan) == ("infra_error", "E-CEILING")


def test_at_the_ceiling_is_not_above_it(bench: Bench, zone: Zone) -> None:
    zone.set(80)
    bench.script(same)
    result = bench.run(sources=[zone.source], ceiling_c=80.0)
    assert result.notes == []


@pytest.mark.parametrize("text", ["98", "480", "0", "-273000", "2147483647", "127000"])
def test_a_temperature_that_cannot_be_is_unknown_with_one_line(
    bench: Bench, zone: Zone, text: str
) -> None:
    zone.set(text)
    bench.script(same)
    ceiling, doubt = bench.run(sources=[zone.source], ceiling_c=80.0, telemetry_hz=200.0).notes
    assert ceiling == "temperature unknown: the ceiling of 80 °C was not watched"
    assert doubt.startswith("temp/thermal_zone0/cpu reads ")
    assert doubt.endswith(": unknown")


def test_a_zone_of_whole_degrees_is_watched_where_its_class_says_so(
    bench: Bench, zone: Zone
) -> None:
    zone.set("98")
    bench.script(same)
    source = replace(zone.source, units={"temp/*/cpu": "degrees"})
    assert bench.fails(sources=[source], ceiling_c=95.0) == ("infra_error", "E-CEILING")


@pytest.mark.parametrize("text", ["-256000", "nonsense", ""])
def test_an_unknown_temperature_is_noted_and_stops_nothing(
    bench: Bench, zone: Zone, text: str
) -> None:
    zone.set(text)
    bench.script(same)
    result = bench.run(sources=[zone.source], ceiling_c=80.0)
    assert result.notes == ["temperature unknown: the ceiling of 80 °C was not watched"]
    assert bench.run(sources=[zone.source]).notes == []


def lose(zone: Zone, how: str) -> None:
    temp = zone.folder / "temp"
    if how == "EIO":  # address 0 of a process cannot be read
        part = zone.folder / ".temp"
        part.symlink_to("/proc/self/mem")
        part.replace(temp)
    elif how == "gone":
        temp.unlink()
    else:
        zone.set(how)


@pytest.mark.parametrize("how", ["EIO", "gone", "-256000", "nonsense"])
@pytest.mark.parametrize("ceiling", [80.0, None])
def test_a_temperature_that_is_lost_in_mid_run_is_never_cool(
    bench: Bench, zone: Zone, how: str, ceiling: float | None
) -> None:
    def losing(call: int, x: Array) -> list[Any]:
        if call == 2 + 3:  # warm-up, half of the first pass
            lose(zone, how)
        return slow(call, x)

    runtime = bench.script(losing)
    result = bench.run(sources=[zone.source], ceiling_c=ceiling, telemetry_hz=0.0)
    told = result.telemetry
    assert runtime.calls == 2 + 6, "unknown is no reason to stop"
    assert (told.start, told.end) == (
        {"temp/thermal_zone0/cpu": 40.0},
        {"temp/thermal_zone0/cpu": None},
    )
    reasons = [] if ceiling is None else ["temperature unknown in 1 of 2 readings"]
    assert (told.timing_valid, told.reasons, result.notes) == (not reasons, reasons, [])


def test_looking_costs_nothing_while_there_is_nothing_new() -> None:
    readings = [Reading(0.0, {"temp/a": 50.0, "temp/b": 61.0, "power/in": 900.0})]
    guard = Guard(None, lambda: readings[-1])
    for _ in range(5):
        guard.check()
    assert (guard.readings, guard.celsius, guard.max_c) == (1, 61.0, 61.0)
    readings.append(Reading(1.0, {"temp/a": 55.0, "temp/b": None}))
    guard.check()
    assert (guard.readings, guard.celsius, guard.max_c) == (2, 55.0, 61.0)
    readings.append(Reading(2.0, {}))
    guard.check()
    assert (guard.celsius, guard.max_c) == (None, 61.0), "a lost sensor does not stay at 55"


def test_the_hottest_of_what_can_be_read() -> None:
    assert hottest({}) is None
    assert hottest({"temp/a": None, "freq/cpu0": 1.0}) is None
    assert hottest({"temp/a": None, "temp/b": -3.0, "temp/c": 0.0}) == 0.0


# Soak ----------------------------------------------------------------------------------------


def test_a_soak_heats_with_the_model_to_its_target_and_holds(bench: Bench, zone: Zone) -> None:
    runtime = bench.script(heating(zone, 0.5))
    soak = wire.Soak(target_c=60.0, hold_s=0.2, heat_s=60.0)
    result = bench.run(sources=[zone.source], soak=soak, telemetry_hz=50.0)
    soaked = result.soak
    assert soaked is not None
    assert (soaked.target_c, soaked.reached, soaked.mismatches, soaked.first) == (60, True, 0, [])
    assert soaked.hold_s >= 0.2
    assert soaked.max_c is not None
    assert soaked.max_c >= 60
    assert soaked.inferences == runtime.calls - 2 - 6
    assert soaked.inferences >= 40 - 8
    assert result.notes == []
    assert len(np.load(result.files["latency_ns"].path)) == 6, "the first pass alone is timed"
    assert result.repeats == wire.Repeats(1, 6)
    assert result.telemetry.max["temp/thermal_zone0/cpu"] == pytest.approx(soaked.max_c, abs=10)


def test_a_target_that_is_not_reached_is_said(bench: Bench, zone: Zone) -> None:
    bench.script(slow)
    soak = wire.Soak(target_c=60.0, hold_s=0.1, heat_s=0.3)
    result = bench.run(sources=[zone.source], soak=soak, telemetry_hz=50.0)
    soaked = result.soak
    assert soaked is not None
    assert not soaked.reached
    assert soaked.heat_s >= 0.3
    assert soaked.hold_s >= 0.1, "it holds all the same: its outputs are evidence"
    assert soaked.max_c == 40.0
    assert result.notes == ["soak: reached 40 °C of 60 °C in 0 s"]


def test_an_unknown_temperature_is_never_hot_and_is_not_heated_for_long(
    bench: Bench, zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak_module, "_PATIENCE_S", 0.2)
    zone.set("-256000")
    bench.script(slow)
    soak = wire.Soak(target_c=60.0, hold_s=0.05, heat_s=3600.0)
    result = bench.run(sources=[zone.source], soak=soak, telemetry_hz=50.0)
    assert result.soak is not None
    assert (result.soak.reached, result.soak.max_c) == (False, None)
    assert result.notes == ["soak: temperature unknown: cannot be shown to reach 60 °C"]


def test_a_soak_whose_temperature_is_lost_stops_heating_and_says_so(
    bench: Bench, zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak_module, "_PATIENCE_S", 0.2)

    def losing(call: int, x: Array) -> list[Any]:
        if call == 2 + 6 + 30:
            lose(zone, "EIO")
        return slow(call, x)

    bench.script(losing)
    soak = wire.Soak(target_c=60.0, hold_s=0.05, heat_s=3600.0)
    result = bench.run(sources=[zone.source], soak=soak, telemetry_hz=50.0)
    assert result.soak is not None
    assert (result.soak.reached, result.soak.max_c) == (False, 40.0)
    (reason,) = result.telemetry.reasons
    assert reason.startswith("temperature unknown in ")


def test_an_output_that_heat_changes_is_counted_with_sample_and_turn(
    bench: Bench, zone: Zone
) -> None:
    def failing(call: int, x: Array) -> list[Any]:
        heated = heating(zone, 0.5)(call, x)
        if call == 2 + 6 + 6 + 3:  # warm-up, first pass, one turn; sample 2 of the second turn
            heated[0] = heated[0] ^ np.int8(1)
        return heated

    bench.script(failing)
    soak = wire.Soak(target_c=60.0, hold_s=0.0, heat_s=60.0)
    soaked = bench.run(sources=[zone.source], soak=soak, telemetry_hz=50.0).soak
    assert soaked is not None
    assert (soaked.mismatches, soaked.first) == (1, [[2, 2]])


@pytest.mark.parametrize(("celsius", "shown"), [(66, None), (45, None)])
def test_a_sensor_that_never_moves_shows_no_soak(
    bench: Bench, zone: Zone, monkeypatch: pytest.MonkeyPatch, celsius: int, shown: float | None
) -> None:
    monkeypatch.setattr(plausible, "_STILL_S", 0.1)
    zone.set(celsius)
    bench.script(slow)
    soak = wire.Soak(target_c=60.0, hold_s=0.6, heat_s=0.6)
    result = bench.run(sources=[zone.source], soak=soak, telemetry_hz=200.0)
    assert result.soak is not None
    assert (result.soak.reached, result.soak.max_c) == (False, shown)
    assert not result.telemetry.timing_valid
    assert "soak: temperature unknown: cannot be shown to reach 60 °C" in result.notes
    assert any("never changed" in note for note in result.notes)


def test_a_device_that_is_hot_already_only_holds(bench: Bench, zone: Zone) -> None:
    zone.set(66)
    bench.script(slow)
    soak = wire.Soak(target_c=60.0, hold_s=0.05, heat_s=60.0)
    soaked = bench.run(sources=[zone.source], soak=soak, telemetry_hz=50.0).soak
    assert soaked is not None
    assert (soaked.reached, soaked.max_c) == (True, 66.0)


def test_a_soak_is_never_silent(bench: Bench, zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_worker.measure._PROGRESS_NS", 20_000_000)
    bench.script(slow)
    soak = wire.Soak(target_c=60.0, hold_s=0.2, heat_s=0.3)
    bench.run(sources=[zone.source], soak=soak)
    told = [row for row in bench.progress if row["phase"] == "soak"]
    assert len(told) >= 3
    assert all(0 <= row["done"] <= row["total"] + 1 for row in told)


# Clock ---------------------------------------------------------------------------------------


def test_a_clock_that_jumps_is_noted_and_changes_no_duration(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, jump = time.time, [0.0]
    monkeypatch.setattr("device_worker.guard.time.time", lambda: real() + jump[0])

    def jumping(call: int, x: Array) -> list[Any]:
        jump[0] = 3600.0
        return slow(call, x)

    bench.script(jumping)
    before = real()
    result = bench.run()
    assert result.notes == [
        "the device's clock jumped by +3600.0 s during the run, or the device slept"
    ]
    assert before <= result.started_unix <= result.ended_unix
    assert result.ended_unix - result.started_unix < 600
    assert result.ended_unix - result.started_unix >= result.run_ns / 1e9


def test_a_clock_that_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    real = time.time
    monkeypatch.setattr("device_worker.guard.time.time", lambda: real() - 86400)
    assert clock.now() >= clock.started
    (note,) = clock.notes()
    assert "-86400" in note


def test_a_clock_that_keeps_time_is_no_news() -> None:
    assert Clock().notes() == []
