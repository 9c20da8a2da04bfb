"""Which readings are believed, beside the cases of tests/data/sources: rules and fuzzed text."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_worker.telemetry.parsers.text import Values
from device_worker.telemetry.plausible import (
    KINDS,
    UNITS,
    believed,
    lines,
    still,
    understood,
)
from device_worker.telemetry.sampler import Sampler
from device_worker.telemetry.sensors import Reading

ZONE = "/sys/class/thermal/thermal_zone0/temp"
NAME = "temp/thermal_zone0"


def zone(number: object, unit: str | None = None) -> object:
    units = {NAME: unit} if unit else {}
    values, _ = understood("thermal_zones", {ZONE: f"{number}\n"}, units)
    return believed(values)[0][NAME]


@pytest.mark.parametrize(
    "number", [0, 1, 25, 98, 125, 305, 480, 1250, -1, -273000, 127000, 2**31 - 1]
)
def test_a_zone_that_nobody_vouches_for_is_neither_cool_nor_hot(number: int) -> None:
    assert zone(number) is None


@pytest.mark.parametrize(
    ("number", "unit", "celsius"),
    [
        (98, "degrees", 98.0),
        (480, "tenths", 48.0),
        (900, "millidegrees", 0.9),
        (98, "millidegrees", None),
        (45277, "degrees", None),
        (0, "degrees", None),
        (200, "degrees", None),
    ],
)
def test_a_class_may_say_what_a_zone_counts_in(
    number: int, unit: str, celsius: float | None
) -> None:
    assert zone(number, unit=unit) == celsius


@given(st.integers(-(10**20), 10**20))
def test_a_number_is_a_temperature_in_one_unit_or_none(number: int) -> None:
    """Whatever is believed without a class's word can be a temperature in thousandths alone."""
    found = zone(number)
    kind = KINDS["temp/"]
    fitting = [u for u, per in UNITS.items() if kind.low <= number / per <= kind.high]
    known = fitting == ["millidegrees"] and abs(number) >= 500
    assert found == (number / 1000 if known else None)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ends_of_each_range_can_be_and_nothing_beyond(kind: str) -> None:
    low, high = KINDS[kind].low, KINDS[kind].high
    name = kind + ("x" if kind.endswith("/") else "")
    ends = [low or 1e-3, high]
    assert [believed({name: end})[0][name] for end in ends] == ends
    wrong: list[Any] = [math.nextafter(low, -math.inf), math.nextafter(high, math.inf)]
    wrong += [math.nan, math.inf, -math.inf, 10**400, True, [1], {}]
    for value in wrong:
        values, doubts = believed({name: value})
        assert values == {name: None}
        assert set(doubts) == {name}
        assert all(line.isprintable() for line in lines(doubts))


def test_texts_and_facts_stay_as_they_are() -> None:
    told: Values = {"battery/status": "full", "memory": 10**10, "sdk": 34, "temp/a": None}
    assert believed(told) == (told, {})


def test_a_device_with_very_many_odd_sensors_is_twenty_lines_and_a_count() -> None:
    told = lines(believed({f"load/{i}": 101 for i in range(50)})[1])
    assert (len(told), told[-1]) == (21, "30 more readings are unknown")


@given(st.dictionaries(st.sampled_from([f"temp/{i}" for i in range(5)]), st.floats(-40, 125)))
def test_neighbours_are_compared_once_and_for_all(values: dict[str, Any]) -> None:
    first, _ = believed(values)
    again, doubts = believed(first)
    assert (again, doubts) == (first, {})


# Never changes -------------------------------------------------------------------------------


def rows(seconds: float, **zones: Any) -> list[tuple[float, dict[str, float | None]]]:
    """Two looks a second; a zone is one number for ever, or (from, to)."""
    count = int(seconds * 2) + 1
    found = []
    for i in range(count):
        at: dict[str, float | None] = {}
        for name, zone in zones.items():
            low, high = zone if isinstance(zone, tuple) else (zone, zone)
            at[f"temp/{name}"] = low + (high - low) * i / (count - 1)
        found.append((i / 2, at))
    return found


@pytest.mark.parametrize(
    ("seconds", "heated", "zones", "doubted"),
    [
        (60, False, {"cpu": (40.0, 70.0), "pmic": 50.0}, ["temp/pmic"]),
        (60, False, {"cpu": (40.0, 44.0), "pmic": 50.0}, []),  # nothing shows that it must move
        (60, False, {"cpu": 45.0}, []),  # nor does a run that need not heat
        (60, True, {"cpu": 45.0}, ["temp/cpu"]),
        (60, True, {"cpu": 80.0, "gpu": 80.0}, ["temp/cpu", "temp/gpu"]),
        (60, True, {"cpu": (40.0, 80.0), "battery": 30.0, "skin/x": 33.0}, []),
        (29, True, {"cpu": 45.0}, []),  # too short to tell
        (60, True, {"cpu": (45.0, 45.1)}, []),
    ],
)
def test_a_temperature_that_never_changes(
    seconds: float, heated: bool, zones: dict[str, Any], doubted: list[str]
) -> None:
    assert list(still(rows(seconds, **zones), heated)) == doubted


def test_few_looks_tell_nothing_however_long_they_took() -> None:
    assert still([(i * 10.0, {"temp/a": 45.0}) for i in range(19)], True) == {}
    assert list(still([(i * 10.0, {"temp/a": 45.0}) for i in range(20)], True)) == ["temp/a"]


def sampled(heated: bool, watched: bool = True, **zones: Any) -> Sampler:
    """A sampler that has seen these rows, and stopped."""
    sampler = Sampler(2.0, watched=watched, heated=heated)
    sampler._readings = [Reading(t_s, values) for t_s, values in rows(60, **zones)]
    return sampler


def test_a_run_by_a_stuck_sensor_alone_has_no_valid_timing() -> None:
    sampler = sampled(True, cpu=45.0)
    told = sampler.summary()
    assert (told.timing_valid, told.max) == (False, {"temp/cpu": None})
    (reason,) = told.reasons
    assert reason.startswith("temperature unknown: temp/cpu read 45 °C in 121 looks over 60 s")
    assert len(sampler.notes()) == 1
    assert sampled(True, watched=False, cpu=45.0).summary().timing_valid


def test_a_stuck_sensor_beside_one_that_moves_is_a_note_and_spoils_nothing() -> None:
    sampler = sampled(False, cpu=(40.0, 70.0), pmic=50.0)
    told = sampler.summary()
    assert (told.timing_valid, told.reasons) == (True, [])
    assert told.max == {"temp/cpu": 70.0, "temp/pmic": None}
    assert [note.split()[0] for note in sampler.notes()] == ["temp/pmic"]


def test_each_doubtful_sensor_is_noted_once() -> None:
    sampler = Sampler(0.0)
    sampler._readings = [
        Reading(0.0, {"temp/a": None}, {"temp/a": "reads 98"}),
        Reading(1.0, {"temp/a": None}, {"temp/a": "reads 99", "load/b": "reads 101 %"}),
    ]
    assert sampler.notes() == ["temp/a reads 98: unknown", "load/b reads 101 %: unknown"]
