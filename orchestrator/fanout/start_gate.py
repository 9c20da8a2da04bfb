"""The start gate: may this device start a cell now? Deciding is pure; waiting is at the end.

What cannot be shown to be met is a note that spoils the timing of the attempt, never its codes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from device_worker.telemetry.plausible import believed, numbers
from device_worker.telemetry.sensors import hottest
from orchestrator.devices.sensing import read_sensors
from orchestrator.devices.worker import Worker
from orchestrator.fanout.hub_job import Order

POLL_S = 2.0

Values = Mapping[str, float | None]
"""A sensor's name (device_worker.telemetry.parsers) to its reading; None is unknown."""


@dataclass(frozen=True)
class Unmet:
    """``note``: for the attempt, or "" where the run itself will tell. ``waits``: it can pass."""

    note: str
    waits: bool


def unmet(
    values: Values,
    *,
    max_start_c: float | None = None,
    ceiling_c: float | None = None,
    min_battery: float | None = None,
) -> list[Unmet]:
    """What stands against starting. Degrees Celsius, percent; None: no such limit.

    An unknown temperature is not cool, an unknown charge is not sufficient: no waiting helps. Nor
    is one that cannot be: what a device sends is not believed before it is checked.
    """
    known = numbers(believed(values)[0])
    return [
        *_battery(known.get("battery/level"), min_battery),
        *_heat(hottest(known), max_start_c, ceiling_c),
    ]


def _battery(level: float | None, limit: float | None) -> list[Unmet]:
    if not limit or (level is not None and level >= limit):  # 0 % is no limit: nothing is needed
        return []
    if level is None:
        return [Unmet(f"battery unknown: cannot be shown to be over {limit:g} %", False)]
    return [Unmet(f"started at {level:g} % battery, under the limit of {limit:g} %", True)]


def _heat(celsius: float | None, limit: float | None, ceiling: float | None) -> list[Unmet]:
    if celsius is None:
        if limit is None:
            return []
        note = f"start temperature unknown: cannot be shown to be under {limit:g} °C"
        return [Unmet(note, False)]
    if limit is not None and celsius > limit:
        return [Unmet(f"started at {celsius:g} °C, over the limit of {limit:g} °C", True)]
    # The run would be stopped at its first reading: worth waiting, no news of its own.
    return [Unmet("", True)] if ceiling is not None and celsius > ceiling else []


def gate(
    worker: Worker,
    order: Order,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[str, ...]:
    """Wait at most ``order.settle_s`` until the device may start; the notes of what is unmet.

    Below the ceiling it is only waited for: without the time the device need not be asked.
    """
    ceiling_c = order.job.ceiling_c if order.settle_s > 0 else None
    if (order.max_start_c, ceiling_c, order.min_battery) == (None, None, None):
        return ()
    deadline = clock() + order.settle_s
    while True:
        found = unmet(
            _look(worker, order),
            max_start_c=order.max_start_c,
            ceiling_c=ceiling_c,
            min_battery=order.min_battery,
        )
        left = deadline - clock()
        if left <= 0 or not any(u.waits for u in found):
            return tuple(u.note for u in found if u.note)
        sleep(min(POLL_S, left))


def _look(worker: Worker, order: Order) -> Values:
    return read_sensors(worker, order.job.sources, timeout=order.limits.silence)[0]
