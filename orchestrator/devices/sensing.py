"""A look at a live device's sensors through its worker, and what may be believed of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from device_worker import wire
from device_worker.telemetry.parsers.text import plain
from device_worker.telemetry.plausible import Doubts, believed, numbers
from orchestrator.devices.worker import Worker

_LONGEST = 200
"""Characters of what a device says of a doubtful reading."""


def read_sensors(
    worker: Worker, sources: Sequence[wire.Source], *, timeout: float
) -> tuple[dict[str, float | None], Doubts]:
    """Readings by sensor, None where unknown; and why, where the sensor said something.

    Raises what the worker's answer raises (E-SILENCE, E-WORKER-…).
    """
    asked = [wire.dump(source) for source in sources]
    return checked(worker.ask("sensors", sources=asked, timeout=timeout))


def checked(answer: Mapping[str, Any]) -> tuple[dict[str, float | None], Doubts]:
    """Of a worker's answer what can be a reading; whatever else it holds is unknown."""
    reading = answer.get("reading")
    said = reading.get("values") if isinstance(reading, dict) else None
    values, doubts = believed(said if isinstance(said, dict) else {})
    why = answer.get("doubts")
    for name, text in why.items() if isinstance(why, dict) else ():
        line = plain(text) if isinstance(text, str) else None
        if line and values.get(name) is None:
            doubts.setdefault(name, line[:_LONGEST])
    return numbers(values), doubts
