"""The start gate: what stands against starting, and how long it waits."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_worker import wire
from device_worker.telemetry.plausible import believed
from orchestrator.devices.session import Limits
from orchestrator.fanout.hub_job import Order, Target
from orchestrator.fanout.start_gate import POLL_S, gate, unmet
from orchestrator.transports.settings import LocalSettings

Gate = Callable[..., tuple[str, ...]]


class Warm:
    """Answers with one reading after the other, then the last again."""

    def __init__(self, *readings: dict[str, float | None]) -> None:
        self.readings, self.asked = list(readings), 0

    def ask(self, op: str, *, timeout: float, sources: list[Any]) -> dict[str, Any]:
        assert (op, timeout) == ("sensors", 9.0)
        self.asked += 1
        reading = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        return {"reading": {"values": reading}}


def order(settle: float = 0, ceiling: float | None = None, **limits: Any) -> Order:
    blob = wire.Blob("0", 0)
    spec = wire.RuntimeSpec("onnxruntime")
    job = wire.Job("a", blob, "onnx", [], spec, 1, ceiling_c=ceiling)
    target = Target("unit", "rpi4", LocalSettings(), "farm", 1)
    return Order(target, job, "python3", {}, Limits(60, 9), settle_s=settle, **limits)


class Time:
    """A clock that moves by what is slept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def ask(self, worker: Warm, order: Order) -> tuple[str, ...]:
        return gate(worker, order, self.sleep, lambda: self.now)  # type: ignore[arg-type]  # asks it nothing else


def cpu(celsius: float | None) -> dict[str, float | None]:
    return {"temp/cpu": celsius}


def test_without_limits_nobody_is_asked() -> None:
    warm = Warm(cpu(99.0))
    assert Time().ask(warm, order(settle=60)) == ()
    assert warm.asked == 0


def test_the_hottest_readable_zone_counts() -> None:
    values = {"temp/cpu": 60.0, "temp/gpu": 20.0, "temp/dead": None, "power/in": 5000.0}
    assert Time().ask(Warm(values), order(max_start_c=60)) == ()
    assert Time().ask(Warm({**values, "temp/x": 60.5}), order(max_start_c=60)) == (
        "started at 60.5 °C, over the limit of 60 °C",
    )


def test_it_waits_until_the_device_is_cool() -> None:
    time, warm = Time(), Warm(cpu(80), cpu(70), cpu(59))
    assert time.ask(warm, order(settle=50, max_start_c=60)) == ()
    assert time.slept == [POLL_S, POLL_S]


def test_it_does_not_wait_for_ever() -> None:
    time = Time()
    (note,) = time.ask(Warm(cpu(80)), order(settle=5, max_start_c=60))
    assert note == "started at 80 °C, over the limit of 60 °C"
    assert time.slept == [2, 2, 1]


def test_a_battery_is_waited_for_too() -> None:
    low: dict[str, float | None] = {"battery/level": 20.0}
    enough: dict[str, float | None] = {"battery/level": 31.0}
    assert Time().ask(Warm(low, enough), order(settle=5, min_battery=30)) == ()
    assert Time().ask(Warm(low), order(settle=5, min_battery=30)) == (
        "started at 20 % battery, under the limit of 30 %",
    )


def test_no_charge_at_all_is_no_limit() -> None:
    assert Time().ask(Warm({}), order(settle=60, min_battery=0)) == ()


@pytest.mark.parametrize("reading", [{}, {"temp/cpu": None, "battery/level": None}])
def test_what_cannot_be_read_is_neither_cool_nor_full(reading: dict[str, float | None]) -> None:
    time = Time()
    heat, charge = "start temperature unknown", "battery unknown"
    notes = time.ask(Warm(reading), order(settle=60, max_start_c=60, min_battery=30))
    assert [n.partition(":")[0] for n in notes] == [charge, heat]
    assert time.slept == [], "no waiting makes it known"


def test_above_the_ceiling_it_waits_but_leaves_the_word_to_the_run() -> None:
    time = Time()
    assert time.ask(Warm(cpu(90), cpu(79)), order(settle=60, ceiling=80)) == ()
    assert time.slept == [POLL_S]
    assert Time().ask(Warm(cpu(90)), order(settle=3, ceiling=80)) == ()
    assert Time().ask(Warm({}), order(settle=3, ceiling=80)) == ()


def test_without_time_to_cool_a_ceiling_alone_is_no_reason_to_ask() -> None:
    warm = Warm(cpu(90))
    assert Time().ask(warm, order(settle=0, ceiling=80)) == ()
    assert warm.asked == 0
    assert Time().ask(warm, order(settle=0, ceiling=80, max_start_c=60))
    assert warm.asked == 1


numbers = st.floats(-60, 150) | st.none()


@given(st.dictionaries(st.sampled_from(["temp/a", "temp/b", "battery/level"]), numbers))
def test_nothing_unknown_passes(values: dict[str, float | None]) -> None:
    found = unmet(values, max_start_c=60, min_battery=30)
    known, _ = believed(values)
    heat = [v for k, v in known.items() if k.startswith("temp/") and isinstance(v, float)]
    met = bool(heat) and max(heat) <= 60
    level = known.get("battery/level")
    assert not isinstance(level, str)
    charged = level is not None and level >= 30
    assert len(found) == (not met) + (not charged)
    assert all(u.note for u in found)


def test_waiting_ends_whatever_the_device_says() -> None:
    for settle, hot in itertools.product((0.0, 0.1, 7.0), (80.0, 61.0)):
        time = Time()
        assert time.ask(Warm(cpu(hot)), order(settle=settle, max_start_c=60))
        assert sum(time.slept) == pytest.approx(settle)
