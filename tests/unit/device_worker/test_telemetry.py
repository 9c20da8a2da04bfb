from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from device_worker.telemetry import sampler as sampler_module
from device_worker.telemetry.sampler import Sampler, summarise
from device_worker.telemetry.sensors import Reading, Sensors


def board(root: Path) -> Path:
    """A Pi-like tree: two zones (one powered off), two cores (one offline)."""
    for name, kind, temp in (("0", "cpu-thermal", "45000"), ("1", "gpu-thermal", "-256000")):
        zone = root / f"sys/class/thermal/thermal_zone{name}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(kind + "\n")
        (zone / "temp").write_text(temp + "\n")
    for core in ("cpu0", "cpu1"):
        (root / f"sys/devices/system/cpu/{core}/cpufreq").mkdir(parents=True)
        frequency(root, core).write_text("1500000\n")
    frequency(root, "cpu1").unlink()
    frequency(root, "cpu1").symlink_to("/proc/self/mem")  # reading it fails with EIO
    throttled(root).parent.mkdir(parents=True)
    throttled(root).write_text("0\n")
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemAvailable: 100 kB\n")
    return root


def frequency(root: Path, core: str) -> Path:
    return root / f"sys/devices/system/cpu/{core}/cpufreq/scaling_cur_freq"


def throttled(root: Path) -> Path:
    return root / "sys/devices/platform/soc/soc:firmware/get_throttled"


def test_unreadable_sensors_are_none_and_not_zero(tmp_path: Path) -> None:
    reading = Sensors(root=str(board(tmp_path))).read(0.0)
    assert reading.values == {
        "temp/thermal_zone0/cpu-thermal": 45.0,
        "temp/thermal_zone1/gpu-thermal": None,
        "freq/cpu0": 1_500_000,
        "freq/cpu1": None,
        "flags/throttled": 0,
        "mem/free": 102_400,
    }


def test_a_device_without_sensors_reads_none(tmp_path: Path) -> None:
    reading = Sensors(root=str(tmp_path)).read(0.0)
    assert reading == Reading(0.0, {"mem/free": None})
    assert summarise([reading, reading]).timing_valid


def test_sampling_rate_ends_and_monotonic_stamps(tmp_path: Path) -> None:
    sampler = Sampler(50, Sensors(root=str(board(tmp_path))))
    sampler.start()
    time.sleep(0.3)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("61000\n")
    readings = sampler.stop()
    stamps = [reading.t_s for reading in readings]
    assert stamps == sorted(stamps)
    assert 3 <= len(readings) <= 20
    summary = sampler.summary()
    assert summary.start["temp/thermal_zone0/cpu-thermal"] == 45.0
    assert summary.end["temp/thermal_zone0/cpu-thermal"] == 61.0
    assert summary.max["temp/thermal_zone1/gpu-thermal"] is None
    assert summary.timing_valid, "heat alone moves no clock"


def test_a_clock_that_dips_and_recovers_invalidates_timing(tmp_path: Path) -> None:
    sampler = Sampler(100, Sensors(root=str(board(tmp_path))))
    sampler.start()
    for khz in (1_500_000, 600_000, 1_500_000):
        frequency(tmp_path, "cpu0").write_text(f"{khz}\n")
        time.sleep(0.08)
    sampler.stop()
    summary = sampler.summary()
    assert summary.start["freq/cpu0"] == summary.end["freq/cpu0"] == 1_500_000
    assert not summary.timing_valid
    assert summary.reasons == ["cpu0 moved between 600000 and 1500000 kHz"]


def test_one_percent_of_the_clock_is_tolerated() -> None:
    def at(khz: int) -> Reading:
        return Reading(0.0, {"freq/cpu0": khz})

    assert summarise([at(1_000_000), at(990_000)]).timing_valid
    assert not summarise([at(1_000_000), at(989_999)]).timing_valid


def test_changed_throttle_flags_invalidate_timing_but_old_ones_do_not() -> None:
    sticky = [
        Reading(0.0, {"flags/throttled": 0x50000}),
        Reading(1.0, {"flags/throttled": 0x50000}),
    ]
    assert summarise(sticky).timing_valid
    summary = summarise(
        [Reading(0.0, {"flags/throttled": 0}), Reading(1.0, {"flags/throttled": 0x50005})]
    )
    assert not summary.timing_valid
    assert (summary.start["flags/throttled"], summary.end["flags/throttled"]) == (0, 0x50005)
    assert "0x50005" in summary.reasons[0]


def test_a_sensor_that_never_answers_does_not_hold_up_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler_module, "_PATIENCE", 0.2)
    root = board(tmp_path)
    temp = root / "sys/class/thermal/thermal_zone0/temp"
    temp.unlink()
    os.mkfifo(temp)  # opening it blocks until somebody writes
    sampler = Sampler(10, Sensors(root=str(root)))
    begin = time.monotonic()
    sampler.start()
    sampler.stop()
    assert time.monotonic() - begin < 2
    summary = sampler.summary()
    assert not summary.timing_valid
    assert "stopped answering" in summary.reasons[0]
    with temp.open("w") as file:  # let the sampler's thread go
        file.write("45000\n")
