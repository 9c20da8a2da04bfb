"""What a checklist makes of what a device said, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from device_worker.telemetry.parsers import PARSERS, Value
from device_worker.telemetry.plausible import numbers, understood
from orchestrator.devices import findings
from orchestrator.devices.facts import Fact, Facts
from orchestrator.devices.health import Item, State
from orchestrator.devices.sensing import checked
from orchestrator.matrix.device_class import DeviceClass, load_class, load_classes, recognise
from orchestrator.matrix.inventory import Device

OK, BAD, UNKNOWN, NONE = State.OK, State.BAD, State.UNKNOWN, State.NONE
PI = {"hardware": "Raspberry Pi 4 Model B Rev 1.4", "machine": "aarch64", "serial": "10000000abc"}


def facts(**values: Value) -> Facts:
    return Facts(tuple(Fact(name, value, "test") for name, value in values.items()))


def known(name: str) -> DeviceClass:
    found = load_class(name)
    assert found is not None
    return found


def device(class_: str = "rpi4", **more: Any) -> Device:
    return Device.model_validate(
        {
            "name": "unit",
            "class": class_,
            "transport": {"type": "local", "root": "/x"},
            "python": {"default": "python3"},
            **more,
        }
    )


def judged(item: Item | None) -> tuple[State | None, str | None]:
    return (None, None) if item is None else (item.state, item.error)


@pytest.mark.parametrize(
    ("recorded", "state", "error"),
    [
        ({}, NONE, None),
        ({"serial": "10000000abc"}, OK, None),
        ({"serial": "another"}, BAD, "E-DEVICE-IDENTITY"),
        ({"fingerprint": "x"}, UNKNOWN, None),
        ({"fingerprint": "x", "serial": "another"}, BAD, "E-DEVICE-IDENTITY"),
    ],
)
def test_the_identity_of_the_inventory(
    recorded: dict[str, str], state: State, error: str | None
) -> None:
    found = findings.recorded(device(identity=recorded), facts(**PI))
    assert judged(found) == (state, error)


@pytest.mark.parametrize(
    ("seen", "now", "state"),
    [
        (None, PI, NONE),
        (PI, PI, OK),
        (PI, {**PI, "serial": "other"}, BAD),
        (PI, {**PI, "hardware": "Raspberry Pi 5"}, BAD),
        (PI, {**PI, "serial": None}, UNKNOWN),
        ({"machine": "aarch64"}, PI, OK),
    ],
)
def test_the_unit_that_was_seen_before(
    seen: dict[str, str] | None, now: dict[str, Value], state: State
) -> None:
    found = findings.same_unit(seen, facts(**now))
    assert found.state is state
    assert (found.error == "E-DEVICE-IDENTITY") is (state is BAD)
    if state is BAD:
        assert "--accept" in (found.fix or "")


def test_only_what_is_known_is_remembered() -> None:
    told = facts(**{**PI, "serial": None, "governor": "ondemand"})
    assert findings.identity_of(told) == {n: v for n, v in PI.items() if n != "serial"}


@pytest.mark.parametrize(
    ("says", "state", "error"),
    [
        (None, None, None),
        ({"class": "rpi4", "emulated": True}, OK, None),
        ({"class": "qemu-a72"}, BAD, "E-DEVICE-IDENTITY"),
        ({}, BAD, None),
        ([1], BAD, None),
    ],
)
def test_the_board_file(says: Any, state: State | None, error: str | None) -> None:
    assert judged(findings.board(device(), says)) == (state, error)


@pytest.mark.parametrize(
    ("class_", "told", "state"),
    [
        ("rpi4", PI, OK),
        ("rpi5", PI, BAD),
        ("x86-64", PI, BAD),
        ("generic-arm64", PI, OK),
        ("generic", PI, OK),
        ("rpi4", {"machine": "aarch64"}, UNKNOWN),
        ("rpi4", {}, UNKNOWN),
    ],
)
def test_whether_it_is_of_its_class(class_: str, told: dict[str, Value], state: State) -> None:
    fitting = recognise(told, str(told.get("machine")), load_classes())
    found = findings.recognised(device(class_), known(class_), facts(**told), fitting)
    assert found.state is state
    if class_ == "rpi5":
        assert "rpi4" in (found.fix or ""), "it says which class it looks like"


def test_a_class_without_a_file_is_said_to_be_any_linux_device() -> None:
    found = findings.recognised(device("our-board"), known("generic"), facts(), ())
    assert found.state is OK
    assert "'our-board'" in found.finding


@pytest.mark.parametrize(
    ("offset", "state"),
    [(None, UNKNOWN), (0.4, OK), (-59.0, OK), (61.0, BAD), (-1e9, BAD)],
)
def test_the_clock(offset: float | None, state: State) -> None:
    assert findings.clock(offset).state is state


@pytest.mark.parametrize(
    ("free", "bundles", "state"),
    [
        (None, 0, UNKNOWN),
        (findings.ROOM, 0, OK),
        (findings.ROOM - 1, 0, BAD),
        (findings.ROOM, 1, BAD),
        (findings.ROOM + 2 * findings.BUNDLE_ROOM, 2, OK),
    ],
)
def test_the_disk(free: int | None, bundles: int, state: State) -> None:
    found = findings.disk(free, bundles, "/root")
    assert judged(found) == (state, "E-DISK-FULL" if state is BAD else None)


def test_sizes_are_for_people() -> None:
    assert [findings.size(n) for n in (0, 999, 1 << 20, 1011 << 20, 3 << 40)] == [
        "0 B",
        "999 B",
        "1 MiB",
        "1011 MiB",
        "3072 GiB",
    ]


@pytest.mark.parametrize(
    ("values", "class_", "state"),
    [
        ({"temp/cpu": 40.0}, "rpi4", OK),
        ({"temp/cpu": None}, "rpi4", UNKNOWN),
        ({"freq/cpu0": 1e6}, "generic", UNKNOWN),
        ({}, "generic", UNKNOWN),
    ],
)
def test_a_device_without_a_temperature_cannot_be_watched(
    values: dict[str, float | None], class_: str, state: State
) -> None:
    assert findings.sensors({"zones": values, "other": {}}, known(class_)).state is state


def test_the_sources_of_a_product_that_gave_nothing_are_named() -> None:
    read: dict[str, dict[str, float | None]] = {
        "/sys/x, /sys/y": {"temp/a": None},
        "vcgencmd get": {},
        "z": {"temp/b": 3.0},
    }
    found = findings.sensors(read, known("rpi4"))
    assert "nothing from /sys/x, …, vcgencmd get" in found.finding
    assert "1 temperature" in found.finding


@pytest.mark.parametrize(
    ("values", "class_", "state", "words"),
    [
        ({"flags/throttled": 0}, "rpi4", OK, "never throttled"),
        ({"flags/throttled": 0x50005}, "rpi4", BAD, "under-voltage now"),
        ({"flags/throttled": 0x10000}, "rpi4", BAD, "under-voltage since start"),
        ({"flags/throttled": 0x80000}, "rpi4", OK, "soft temperature limit since start"),
        ({"flags/throttled": 0x8}, "rpi4", BAD, "soft temperature limit now"),
        ({"flags/throttled": None}, "rpi4", UNKNOWN, ""),
        ({}, "rpi4", UNKNOWN, ""),
        ({}, "generic", NONE, ""),
        ({"flags/core_throttle_count": 12}, "x86-64", OK, "core throttle count 12"),
        ({"status/thermal": 0}, "android-arm64", OK, "none"),
        ({"status/thermal": 2}, "android-arm64", BAD, "moderate"),
        ({"status/thermal": 99}, "android-arm64", BAD, "99"),
        ({"flags/throttled": 0, "flags/under_voltage": 1}, "rpi4", BAD, "just now"),
        ({"flags/thermal_override": 0, "status/thermal": 0}, "android-arm64", OK, "none"),
        ({"flags/thermal_override": 1}, "android-arm64", UNKNOWN, "forced"),
    ],
)
def test_throttle_history(
    values: dict[str, float | None], class_: str, state: State, words: str
) -> None:
    found = findings.throttling(facts(), values, known(class_))
    assert found.state is state
    assert words in found.finding


def test_a_forced_thermal_status_is_told_with_its_fix() -> None:
    text = "IsStatusOverride: true\nThermal Status: 0\nHAL Ready: true\n"
    values = {
        k: v for k, v in PARSERS["thermalservice"]({"": text}).items() if not isinstance(v, str)
    }
    found = findings.throttling(facts(), values, known("android-arm64"))
    assert found.state is UNKNOWN
    assert found.fix is not None
    assert "thermalservice reset" in found.fix


def test_throttle_flags_that_only_the_facts_tell() -> None:
    told = facts(**{"flags/throttled": 0x10001})
    assert findings.throttling(told, {"flags/throttled": None}, known("rpi4")).state is BAD


@pytest.mark.parametrize(
    ("values", "class_", "state"),
    [
        ({"temp/cpu": 59.0}, "rpi4", OK),
        ({"temp/cpu": 61.0}, "rpi4", BAD),
        ({"temp/cpu": 50.0, "temp/gpu": 61.0}, "rpi4", BAD),
        ({"temp/cpu": None}, "rpi4", UNKNOWN),
        ({"temp/cpu": 94.0}, "generic", OK),
        ({"temp/cpu": 96.0}, "generic", BAD),
        ({}, "generic", NONE),
        ({}, "android-arm64", UNKNOWN),
    ],
)
def test_idle_temperature(values: dict[str, float | None], class_: str, state: State) -> None:
    assert findings.temperature(values, known(class_)).state is state


def test_a_reading_that_is_not_believed_is_a_line_and_never_cool() -> None:
    raw = {"/sys/class/thermal/thermal_zone0/temp": "98\n"}
    told, doubts = understood("thermal_zones", raw)
    found = findings.temperature(numbers(told), known("generic"), doubts)
    assert (found.state, found.finding) == (UNKNOWN, "not known; runs are stopped above 95 °C")
    (line,) = findings.doubtful(doubts)
    assert line.state is UNKNOWN
    assert "98 °C or 9.8 °C or 0.098 °C: unknown" in line.finding
    assert "`units`" in (line.fix or "")
    assert findings.doubtful({}) == []
    (many,) = findings.doubtful({f"load/{i}": "reads 101 %" for i in range(9)})
    assert many.finding.endswith("; and 6 more")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"reading": [1]},
        {"reading": {"values": "x"}},
        {"reading": {"values": {"temp/a": "45", "temp/b": float("nan"), "temp/c": [4], "d": 1}}},
        {"reading": {"values": {"temp/a": 0.098}}, "doubts": {"temp/a": 7, "temp/b": None}},
        {"reading": {"values": {"temp/a": 10**400}}, "doubts": ["temp/a"]},
    ],
)
def test_what_a_worker_says_of_its_sensors_is_checked(answer: dict[str, Any]) -> None:
    values, doubts = checked(answer)
    assert all(isinstance(v, int | float | None) for v in values.values())
    assert "temp/a" not in values or values["temp/a"] is None
    assert all(isinstance(why, str) for why in doubts.values())


def test_why_a_reading_is_unknown_comes_with_it_as_one_short_line() -> None:
    answer = {
        "reading": {"values": {"temp/a": None}},
        "doubts": {"temp/a": "reads 9\x1b[2J\n8" * 99},
    }
    (why,) = checked(answer)[1].values()
    assert why.isprintable()
    assert len(why) == 200


def test_governor_and_power_mode() -> None:
    both = findings.governor(facts(governor="schedutil", power_mode="15W"), known("jetson-orin"))
    assert (both.state, both.finding) == (OK, "governor schedutil, power mode 15W")
    assert findings.governor(facts(governor=None), known("rpi4")).state is UNKNOWN
    assert findings.governor(facts(), known("generic")).state is NONE


def test_a_runtime_that_is_there_and_one_that_is_not() -> None:
    environment = {"runtimes": {"litert": {"distribution": "ai-edge-litert", "version": "2.3.0"}}}
    assert findings.runtime("litert", "py", environment).finding == "2.3.0 for py"
    missing = findings.runtime("onnxruntime", "py", environment)
    assert judged(missing) == (BAD, "E-RUNTIME-MISSING")
    assert judged(findings.runtime("litert", "py", {})) == (BAD, "E-RUNTIME-MISSING")


def test_a_stand_in_is_no_accelerator() -> None:
    told = {"library": "/l.so", "sha256": "0" * 64, "version": None, "standin": "standin-edgetpu"}
    assert findings.delegate("edgetpu", "litert", device("standin-edgetpu"), told).state is OK
    wrong = findings.delegate("edgetpu", "litert", device("coral-usb"), told)
    assert judged(wrong) == (BAD, "E-DEVICE-IDENTITY")
    assert findings.delegate("e", "litert", device(), {**told, "standin": None}).state is OK
