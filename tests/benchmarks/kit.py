"""Paired timing and the tables that show it.

The machine is shared and its speed wanders, so arms are never timed one after the other: every
turn runs each arm once, in an order that rotates, and ratios are taken within a turn.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Call = Callable[[], object]


class SkippedError(Exception):
    """This machine lacks what the benchmark needs; the message says what."""


@dataclass(frozen=True)
class Spread:
    """Of ``n`` values: quantiles and ends, in the unit of the values."""

    n: int
    p50: float
    p90: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        ordered = sorted(values)
        p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
        return cls(len(ordered), statistics.median(ordered), p90, ordered[0], ordered[-1])


@dataclass
class Table:
    """``rows``: (label, cells); a Spread cell is printed as p50, p90, min–max and n."""

    title: str
    unit: str
    rows: list[tuple[str, Spread]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, label: str, values: Sequence[float]) -> Spread:
        self.rows.append((label, Spread.of(values)))
        return self.rows[-1][1]

    def note(self, text: str) -> None:
        self.notes.append(text)

    def text(self) -> str:
        head = ("", "p50", "p90", "min–max", "n")
        body = [
            (label, _number(s.p50), _number(s.p90), f"{_number(s.low)}–{_number(s.high)}", str(s.n))
            for label, s in self.rows
        ]
        wide = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
        lines = [f"{self.title}  [{self.unit}]"]
        for row in (head, *body):
            cells = [
                row[0].ljust(wide[0]),
                *(c.rjust(w) for c, w in zip(row[1:], wide[1:], strict=True)),
            ]
            lines.append("  " + "  ".join(cells).rstrip())
        return "\n".join([*lines, *(f"  - {note}" for note in self.notes)])

    def data(self) -> dict[str, Any]:
        rows = {label: vars(spread) for label, spread in self.rows}
        return {"title": self.title, "unit": self.unit, "rows": rows, "notes": self.notes}


def interleave(
    arms: Mapping[str, Call],
    turns: int,
    warm: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each arm in each of ``turns`` turns; ``warm`` turns before them do not count.

    ``clock``: time.process_time where no arm waits for anything but the processor.
    """
    names = list(arms)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm, turns):
        for i in range(len(names)):
            name = names[(turn + i) % len(names)]
            begin = clock()
            arms[name]()
            seconds = clock() - begin
            if turn >= 0:
                taken[name].append(seconds)
    return taken


def scaled(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Turn by turn, so that what slowed a whole turn down cancels."""
    return [a / b for a, b in zip(above, below, strict=True)]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import os

    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "load": os.getloadavg(),
    }


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
