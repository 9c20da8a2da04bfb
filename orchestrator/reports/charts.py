"""Geometry of the report's inline charts: numbers in, SVG path data out. Drawn by templates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.reports import format as fmt

Series = Sequence[float | None]

_HEAT_LIMITS = (0.005, 0.02, 0.05, 0.2)
HEAT_LABELS = ("0", "≤ 0.5 %", "≤ 2 %", "≤ 5 %", "≤ 20 %", "> 20 %")
"""What each colour step of the heat map stands for, in order."""


def heat_step(rate: Mapping[str, Any] | None) -> int | None:
    """Colour step 0–5 of a disagreement rate; None where nothing was compared."""
    if rate is None or rate.get("rate") is None:
        return None
    fraction = rate["rate"]
    return 0 if fraction == 0 else 1 + sum(fraction > limit for limit in _HEAT_LIMITS)


@dataclass(frozen=True)
class Axis:
    """A linear scale: ``at`` maps a value to a position in 0..``length``."""

    low: float
    high: float
    length: float

    def at(self, value: float) -> float:
        return round((value - self.low) / (self.high - self.low) * self.length, 1)

    def ticks(self, most: int = 6) -> list[float]:
        """At most ``most`` round values inside the axis."""
        raw = (self.high - self.low) / most
        magnitude = 10.0 ** math.floor(math.log10(raw))
        step = next(m for f in (1, 2, 5, 10) if (m := f * magnitude) >= raw * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


_FAR = 0.15
"""A row this far under its FP32 parent's interval is marked at the edge, not drawn to scale: it
needs no ruler, and would press all other rows into a few pixels."""


def rate_axis(
    rates: Sequence[Mapping[str, Any]], parents: Sequence[Mapping[str, Any]], length: float
) -> Axis:
    """One axis that holds every interval, parents included, a little wider, within 0..1.

    Intervals far below every parent's may lie left of it (see ``Axis.low``).
    """
    floor = min((parent["low"] for parent in parents), default=_FAR) - _FAR
    near = [rate for rate in [*rates, *parents] if rate["rate"] >= floor]
    low = min(rate["low"] for rate in near)
    high = max(rate["high"] for rate in near)
    pad = max((high - low) * 0.04, 0.005)
    return Axis(max(0.0, low - pad), min(1.0, high + pad), length)


@dataclass(frozen=True)
class Line:
    """One series of a trace: legend name, colour number, SVG path and its range as text."""

    name: str
    colour: int
    path: str
    range: str


@dataclass(frozen=True)
class Plot:
    """A small chart of lines over one x axis; ``lines`` is empty when nothing was readable.

    ``low``, ``high`` and ``end`` are the labels of the y axis' ends and of the x axis' right end.
    """

    title: str
    unit: str
    width: int
    height: int
    lines: list[Line]
    low: str
    high: str
    end: str


def plot(title: str, unit: str, x: Sequence[float], series: Mapping[str, Series], end: str) -> Plot:
    """Lines with gaps where a reading is missing. ``end`` labels the right end of the x axis.

    Equal series (the cores of one clock domain) become one line with a joint name.
    """
    width, height = 176, 70
    known = [value for values in series.values() for value in values if value is not None]
    if not known:
        return Plot(title, unit, width, height, [], fmt.DASH, fmt.DASH, end)
    low, high = min(known), max(known)
    # A constant reading is drawn mid-height: an axis needs some extent.
    slack = (high - low) * 0.05 or max(abs(high) * 0.05, 1.0)
    across = Axis(x[0], x[-1] if x[-1] > x[0] else x[0] + 1.0, width)
    up = Axis(low - slack, high + slack, height)
    lines = []
    for colour, (name, values) in enumerate(_joined(series)):
        own = [value for value in values if value is not None]
        points = [
            None if value is None else (across.at(at), round(height - up.at(value), 1))
            for at, value in zip(x, values, strict=True)
        ]
        spread = f"{short(min(own))} to {short(max(own))}"
        lines.append(Line(name, colour % 6, _path(points), spread))
    return Plot(title, unit, width, height, lines, short(low), short(high), end)


def short(value: float) -> str:
    """Three significant digits, never as 1e+04."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _joined(series: Mapping[str, Series]) -> Iterator[tuple[str, Series]]:
    names: dict[tuple[float | None, ...], list[str]] = {}
    for name, values in series.items():
        if any(value is not None for value in values):
            names.setdefault(tuple(values), []).append(name)
    for values, same in names.items():
        yield (same[0] if len(same) == 1 else f"{same[0]} … {same[-1]} ({len(same)})"), values


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    """SVG path data; a lone point between gaps becomes a dot (round line caps draw it)."""
    parts: list[str] = []
    pen_up = True
    for i, point in enumerate(points):
        if point is None:
            pen_up = True
            continue
        lone = pen_up and (i + 1 == len(points) or points[i + 1] is None)
        parts.append(f"{'M' if pen_up else 'L'}{point[0]:g} {point[1]:g}{'h0' if lone else ''}")
        pen_up = False
    return "".join(parts)
