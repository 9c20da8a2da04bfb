from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_worker.telemetry import sampler as sampler_module
from device_worker.telemetry.sampler import Sampler, summarise
from device_worker.telemetry.sensors import Reading, Sensors, look
from device_worker.wire import Source


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
    with Sensors(root=str(board(tmp_path))) as sensors:
        reading = sensors.read(0.0)
    assert reading.values == {
        "temp/thermal_zone0/cpu-thermal": 45.0,
        "temp/thermal_zone1/gpu-thermal": None,
        "freq/cpu0": 1_500_000,
        "freq/cpu1": None,
        "flags/throttled": 0,
        "mem/free": 102_400,
    }


def test_a_device_without_sensors_reads_none(tmp_path: Path) -> None:
    with Sensors(root=str(tmp_path)) as sensors:
        reading = sensors.read(0.0)
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


def test_the_flags_of_a_raspberry_pi_are_told_in_words() -> None:
    def at(*flags: int) -> list[str]:
        return summarise([Reading(0.0, {"flags/throttled": f}) for f in flags]).reasons

    assert at(0x50000, 0x50000) == [], "of another time"
    assert at(0, 0x50005) == ["throttled flags changed: 0x0, 0x50005 (under-voltage, throttled)"]
    assert at(0, 0x10000) == ["throttled flags changed: 0x0, 0x10000 (under-voltage)"]
    assert at(0x50005, 0x50005) == [
        "throttled flags 0x50005 throughout (under-voltage now, throttled now)"
    ]
    assert at(0x80008, 0x80000) == ["throttled flags changed: 0x80008, 0x80000 (cleared)"]


def test_counts_and_levels_that_moved_are_told_as_such() -> None:
    def at(name: str, *values: float) -> list[str]:
        return summarise([Reading(0.0, {name: value}) for value in values]).reasons

    assert at("flags/core_throttle_count", 3, 3) == []
    assert at("flags/core_throttle_count", 3, 5) == ["core_throttle_count rose from 3 to 5"]
    assert at("status/thermal", 0, 2, 0) == ["thermal status moved between 0 and 2"]


def test_a_clock_or_flag_that_is_no_longer_known_spoils_the_timing() -> None:
    summary = summarise(
        [
            Reading(0.0, {"freq/cpu0": 1, "flags/throttled": 0, "temp/a": 40.0, "freq/cpu1": None}),
            Reading(1.0, {"freq/cpu0": None, "temp/a": None, "freq/cpu1": None}),
        ]
    )
    assert summary.reasons == ["freq/cpu0 became unreadable", "flags/throttled became unreadable"]


def test_a_temperature_that_a_run_depends_on_and_loses_spoils_the_timing() -> None:
    def at(*rows: dict[str, float | None], lost: tuple[str, ...] = ()) -> list[str]:
        return summarise([Reading(0.0, row) for row in rows], watched=True, lost=lost).reasons

    known: dict[str, float | None] = {"temp/a": 30.0}
    gone: dict[str, float | None] = {"temp/a": None}
    assert at(known, known) == []
    assert at(known, gone) == ["temperature unknown in 1 of 2 readings"]
    assert at(known, {}, gone, known) == ["temperature unknown in 2 of 4 readings"]
    assert at(gone, gone) == [], "never known: the guard says so, and nobody claims anything"
    assert at({**known, "temp/b": 60.0}, {**known, "temp/b": None}) == ["temp/b became unreadable"]
    assert at({**known, "temp/b": None}, {**known, "temp/b": None}) == []
    assert at(known, gone, lost=("zones",)) == [
        "zones stopped answering",
        "temperature unknown in 1 of 2 readings",
    ]
    assert summarise([Reading(0.0, known), Reading(1.0, gone)]).timing_valid, "nobody watched it"


def test_a_forced_thermal_status_spoils_the_timing() -> None:
    def at(*override: float) -> list[str]:
        rows = [
            {"status/thermal": None if o else 0.0, "flags/thermal_override": o} for o in override
        ]
        return summarise([Reading(0.0, row) for row in rows]).reasons

    forced = "the thermal status was a forced one: whether it throttled is not known"
    assert at(0, 0) == []
    assert at(1, 1) == [forced]
    assert at(0, 1) == ["status/thermal became unreadable", forced]
    assert at(1, 0) == [forced]


def test_a_power_mode_that_somebody_changes_spoils_the_timing(tmp_path: Path) -> None:
    mode = tmp_path / "mode"
    mode.write_text("NV Power Mode: MAXN\n0\n")
    tool = script(tmp_path, "nvpmodel", f"cat {mode}\n")
    source = Source("nvpmodel_id", command=[tool, "-q"], every_s=60.0, timeout_s=20.0)
    sampler = Sampler(50, Sensors([source]))
    sampler.start()
    mode.write_text("NV Power Mode: MODE_10W\n2\n")
    sampler.stop()
    summary = sampler.summary()
    assert (summary.start, summary.end) == ({"status/power_mode": 0}, {"status/power_mode": 2})
    assert summary.reasons == ["power_mode status moved between 0 and 2"]


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """A file that blocks whoever opens it."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path
    with contextlib.suppress(OSError):  # let a thread that waits for it go
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


def test_a_file_that_blocks_costs_its_source_only_and_only_once(fifo: Path) -> None:
    memory = fifo.with_name("meminfo")
    memory.write_text("MemAvailable: 1 kB\n")
    sources = [
        Source("throttled_sysfs", [str(fifo)], timeout_s=0.3),
        Source("meminfo", [str(memory)]),
    ]
    with Sensors(sources) as sensors:
        assert sensors.read(0.0).values == {"mem/free": 1024}
        begin = time.monotonic()
        for look in range(100):
            assert sensors.read(float(look)).values == {"mem/free": 1024}
        assert time.monotonic() - begin < 20, "each look would have cost 0.3 s"
        assert sensors.lost == [], "it never answered: unknown, like what is not there"
    threads = threading.active_count()
    for _ in range(20):
        with Sensors(sources) as sensors:
            sensors.read(0.0)
    assert threading.active_count() <= threads, "a thread was left behind for each try"


def test_a_file_that_blocks_in_the_middle_of_a_run_spoils_the_timing(tmp_path: Path) -> None:
    root = board(tmp_path)
    sources = [
        Source("throttled_sysfs", [str(throttled(root))], timeout_s=2.0),
        Source("cpu_frequencies", [str(frequency(root, "cpu0"))]),
    ]
    sampler = Sampler(50, Sensors(sources))
    sampler.start()
    throttled(root).unlink()
    os.mkfifo(throttled(root))
    wait_until(lambda: (sampler.latest() or Reading(0)).values.get("flags/throttled", 0) is None)
    readings = sampler.stop()
    summary = sampler.summary()
    assert not summary.timing_valid
    assert summary.reasons == [f"{throttled(root)} stopped answering"]
    assert summary.start["flags/throttled"] == 0
    assert summary.end == {"flags/throttled": None, "freq/cpu0": 1_500_000}
    assert readings[-1].values == summary.end
    with throttled(root).open("w") as file:
        file.write("0\n")


def test_a_sampler_whose_sensors_hang_beyond_their_time_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, fifo: Path
) -> None:
    monkeypatch.setattr(sampler_module, "_PATIENCE", 0.2)
    sampler = Sampler(10, Sensors([Source("meminfo", [str(fifo)], timeout_s=30.0)]))
    begin = time.monotonic()
    sampler.start()
    sampler.stop()
    assert time.monotonic() - begin < 10
    assert sampler.summary().reasons == ["the sensors stopped answering"]


def script(folder: Path, name: str, body: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return str(path)


def test_a_command_is_asked_seldom_and_at_both_ends(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    tool = script(tmp_path, "vcgencmd", f"echo x >> {calls}; echo throttled=0x50000\n")
    source = Source("vcgencmd_throttled", command=[tool, "get_throttled"], every_s=3600.0)
    with Sensors([source]) as sensors:
        assert [sensors.read(t).values for t in (0.0, 0.5, 1.0)] == [
            {"flags/throttled": 0x50000}
        ] * 3
        assert calls.read_text() == "x\n"
        sensors.read(1.5, fresh=True)
        assert calls.read_text() == "x\nx\n"


@pytest.mark.parametrize("body", ["exit 3\n", "echo nonsense\n", "echo throttled=0x0; exit 1\n"])
def test_a_command_that_fails_is_unknown_and_may_come_back(tmp_path: Path, body: str) -> None:
    tool = script(tmp_path, "tool", body)
    with Sensors([Source("vcgencmd_throttled", command=[tool])]) as sensors:
        assert sensors.read(0.0).values == {"flags/throttled": None}
        script(tmp_path, "tool", "echo throttled=0x0\n")
        assert sensors.read(1.0).values == {"flags/throttled": 0}
        assert sensors.lost == []


def test_a_command_there_is_not_is_nothing(tmp_path: Path) -> None:
    with Sensors([Source("nvpmodel", command=["no-such-tool-here", "-q"])]) as sensors:
        assert sensors.read(0.0).values == {}
        assert sensors.lost == []


def test_a_late_command_is_killed_with_all_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    tool = script(tmp_path, "tool", f"sleep 600 & echo $! > {child}; wait\n")
    with Sensors([Source("nvpmodel", command=[tool], timeout_s=3.0)]) as sensors:
        assert sensors.read(0.0).values == {}
        wait_until(lambda: gone(int(child.read_text())))
        child.write_text("")
        sensors.read(1.0)
        assert child.read_text() == "", "asked again"


def test_a_command_without_end_is_no_answer(tmp_path: Path) -> None:
    tool = script(tmp_path, "tool", "exec yes 'NV Power Mode: MAXN'\n")
    with Sensors([Source("nvpmodel", command=[tool], timeout_s=20.0)]) as sensors:
        assert sensors.facts() == {"power_mode": None, "power_mode_id": None}


def test_the_newest_line_of_a_stream_counts_and_it_ends_with_the_sensors(tmp_path: Path) -> None:
    pid, more = tmp_path / "pid", tmp_path / "more"
    tool = script(
        tmp_path,
        "tegrastats",
        f"echo $$ > {pid}; echo 'RAM 1/2MB CPU@40C'\n"
        f"while [ ! -e {more} ]; do sleep 0.05; done\n"
        "while sleep 0.05; do echo 'RAM 1/2MB CPU@50C'; done\n",
    )
    source = Source("tegrastats", command=[tool], stream=True, timeout_s=20.0)
    with Sensors([source]) as sensors:
        assert sensors.read(0.0).values == {"temp/CPU": 40.0}
        more.touch()
        wait_until(lambda: sensors.read(1.0).values == {"temp/CPU": 50.0})
        assert not gone(int(pid.read_text()))
    wait_until(lambda: gone(int(pid.read_text())))


def test_a_stream_that_falls_silent_is_lost_and_said_to_be(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    tool = script(tmp_path, "tool", f"echo $$ > {pid}; echo 'RAM 1/2MB CPU@40C'; exec sleep 600\n")
    sampler = Sampler(20, Sensors([Source("tegrastats", [], [tool], True, timeout_s=3.0)]))
    sampler.start()
    wait_until(lambda: (sampler.latest() or Reading(0)).values == {"temp/CPU": None})
    sampler.stop()
    assert sampler.summary().reasons == [f"{tool} stopped answering"]
    assert gone(int(pid.read_text()))


def test_a_stream_that_ends_at_once_is_unknown(tmp_path: Path) -> None:
    tool = script(tmp_path, "tool", "echo no permission >&2; exit 1\n")
    with Sensors([Source("tegrastats", [], [tool], True)]) as sensors:
        assert sensors.read(0.0).values == {}
        assert sensors.lost == []


def test_a_sensor_known_to_two_sources_stays_with_the_first_that_read_it(tmp_path: Path) -> None:
    root = board(tmp_path)
    tool = script(tmp_path, "tool", "echo 'RAM 1/2MB CPU [5%@1400,6%@1400]'\n")
    sources = [
        Source("cpu_frequencies", [str(frequency(root, "cpu*"))]),
        Source("tegrastats", command=[tool]),
    ]
    with Sensors(sources) as sensors:
        seen = sensors.read(0.0).values
        assert (seen["freq/cpu0"], seen["freq/cpu1"]) == (1_500_000, 1_400_000)
        frequency(root, "cpu0").write_text("<unknown>\n")
        assert sensors.read(1.0).values["freq/cpu0"] is None, "another source is another clock"


def test_texts_are_facts_and_no_readings(tmp_path: Path) -> None:
    file = tmp_path / "scaling_governor"
    file.write_text("ondemand\n")
    source = Source("governor", [str(file)])
    assert look(source) == {"governor": "ondemand"}
    with Sensors([source]) as sensors:
        assert sensors.read(0.0).values == {}


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
