"""Which readings may be believed: pure, and the same on the device and on the coordinator.

A sensor says a number and nobody vouches for it: drivers tell whole degrees where the kernel's
interface wants thousandths, placeholders, and what an unconnected input floats at. What cannot be
the quantity it is called, or may be one of several, is unknown: never cool and never hot.
"""

from __future__ import annotations

import fnmatch
import math
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from device_worker.telemetry.parsers import PARSERS
from device_worker.telemetry.parsers.text import Bare, Raw, Value, Values

Doubts = Dict[str, str]
"""A sensor's name -> why its reading is not believed."""


class Kind(NamedTuple):
    """What a sensor of a kind may read at all, both ends included."""

    unit: str
    low: float
    high: float


COLDEST_C, HOTTEST_C = -40.0, 125.0
"""Silicon is specified for no more; an unconnected hwmon input says -128, 127 or 255."""

KINDS: Mapping[str, Kind] = {
    "temp/": Kind("°C", COLDEST_C, HOTTEST_C),
    "temp/battery": Kind("°C", -30.0, 100.0),
    "freq/": Kind("kHz", 5_000, 20_000_000),
    "power/": Kind("mW", -1_000, 2_000_000),
    "volt/": Kind("mV", -20_000, 500_000),
    "volt/core": Kind("mV", 100, 3_000),
    "volt/battery": Kind("mV", 1_000, 100_000),
    "curr/": Kind("mA", -500_000, 500_000),
    "fan/": Kind("rpm", 0, 100_000),
    "load/": Kind("%", 0, 100),
    "battery/level": Kind("%", 0, 100),
    "supply/mains": Kind("", 0, 1),
    "flags/": Kind("", 0, float(1 << 53)),
    "status/": Kind("", 0, 1_000),
    "mem/": Kind("bytes", 0, float(1 << 53)),
}
"""Ranges by how a sensor's name begins; of several the longest counts.

Rails of a few mW may read below zero by their offset; a clock below 5 MHz is one in MHz, above 20
GHz one in Hz.
"""

UNITS: Mapping[str, float] = {"degrees": 1.0, "tenths": 10.0, "millidegrees": 1000.0}
"""What a temperature may be counted in -> how many of them are one degree Celsius."""

MEANT: Mapping[str, str] = {
    "thermal_zones": "millidegrees",
    "hwmon": "millidegrees",
    "hwmon_cpu": "millidegrees",
    "apex": "millidegrees",
    "power_supply": "tenths",
    "dumpsys_battery": "tenths",
    "thermalservice": "degrees",
}
"""Parser -> what the interface it reads is meant to count in. Not every driver heeds it."""

_UNBOUNDED = 10**18
_NOTHING_C = 0.5
"""Nearer to zero is no zone at work, but one that says 0, or whole degrees in thousandths."""
_ABSENT_C = (-256.0, -99.9)
"""What a Jetson says of a unit without power, and a HAL of a sensor it has not: no fault."""
_APART_C = 60.0
"""How far one zone of a device can be from every other.

The chip at its limit and the case beside it differ by less.
"""
_SLOW = ("temp/battery", "temp/skin", "temp/ambient", "temp/usb")
"""So heavy, or so far from the chip, that they may rest while it heats."""
_STILL_LOOKS, _STILL_S, _MOVED_C = 20, 30.0, 5.0


def understood(
    parser: str, raw: Raw, units: Optional[Mapping[str, str]] = None
) -> Tuple[Values, Doubts]:
    """What a source's texts say, temperatures in degrees Celsius, and what is not believed of it.

    ``units``: glob of a sensor's name -> one of ``UNITS``, as its class says; the first counts.
    """
    found: Values = {}
    doubts: Doubts = {}
    texts = {path: text and text.replace("\r\n", "\n") for path, text in raw.items()}
    for name, value in PARSERS[parser](texts).items():
        if isinstance(value, Bare):
            said = _said(name, units or {})
            value, why = _celsius(name, value, said, MEANT.get(parser, "degrees"))
            if why:
                doubts[name] = why
        found[name] = value
    return found, doubts


def believed(values: Mapping[str, Value]) -> Tuple[Values, Doubts]:
    """``values`` with None for each number that cannot be what its name says; texts stay.

    Temperatures that agree with no other zone of the device are such numbers, too.
    """
    found: Values = {}
    doubts: Doubts = {}
    for name, value in values.items():
        why = _impossible(name, value)
        if why:
            doubts[name] = why
        found[name] = None if why else value
    for name, why in _apart(found).items():
        doubts[name] = why
        found[name] = None
    return found, doubts


def numbers(values: Mapping[str, Value]) -> Dict[str, Optional[float]]:
    """Those of ``values`` that are readings, without the texts."""
    return {n: v for n, v in values.items() if v is None or isinstance(v, (int, float))}


def still(rows: Sequence[Tuple[float, Mapping[str, Optional[float]]]], heated: bool) -> Doubts:
    """Temperatures that never changed while the device was at work, from (seconds, readings).

    Of a zone that reads the very same number for 30 s and 20 looks nothing may be concluded where
    another moved by 5 °C, or where the load was there to heat it (``heated``: a soak). Batteries
    and what lies far from the chip may rest.
    """
    names = {name for _, row in rows for name in row if name.startswith("temp/")}
    seen = {name: _seen(rows, name) for name in names}
    moving = {n for n, found in seen.items() if _span([v for _, v in found]) >= _MOVED_C}
    doubts: Doubts = {}
    for name in sorted(names):
        found = seen[name]
        long = len(found) >= _STILL_LOOKS and found[-1][0] - found[0][0] >= _STILL_S
        if not long or name.startswith(_SLOW) or _span([v for _, v in found]) > 0:
            continue
        if heated or moving:
            doubts[name] = "read %g °C in %d looks over %.0f s and never changed" % (
                found[0][1],
                len(found),
                found[-1][0] - found[0][0],
            )
    return doubts


def lines(doubts: Mapping[str, str]) -> List[str]:
    """For people, one a sensor; a device with very many tells the first twenty."""
    told = ["%s %s: unknown" % pair for pair in list(doubts.items())[:20]]
    more = len(doubts) - len(told)
    return told + (["%d more readings are unknown" % more] if more else [])


def _said(name: str, units: Mapping[str, str]) -> Optional[str]:
    return next((unit for glob, unit in units.items() if fnmatch.fnmatchcase(name, glob)), None)


def _celsius(
    name: str, number: float, said: Optional[str], meant: str
) -> Tuple[Optional[float], Optional[str]]:
    """Degrees Celsius, or why they are not known. ``said``: the unit that the class names."""
    per_degree = UNITS[said or meant]
    celsius = round(number / per_degree, 3)
    if celsius in _ABSENT_C:
        return None, None
    if said is None and number != 0:
        coarser = (each for each in UNITS.values() if each < per_degree)
        others = [number / each for each in coarser if _fits(name, number / each)]
        if others:
            may_be = " or ".join("%g °C" % each for each in [*others, celsius])
            return None, "reads %g, which may be %s" % (number, may_be)
    return celsius, None


def _impossible(name: str, value: Value) -> Optional[str]:
    if value is None or isinstance(value, str):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "is no number"
    kind = _kind(name)
    if isinstance(value, float) and not math.isfinite(value):
        return "reads %s" % value
    if abs(value) >= _UNBOUNDED:
        return "reads a number of more than 18 digits"
    if abs(value) < _NOTHING_C and name.startswith("temp/"):
        return "reads %g °C, as a sensor does that measures nothing or uses another unit" % value
    if kind is None or kind.low <= value <= kind.high:
        return None
    unit = " " + kind.unit if kind.unit else ""
    between = "%g to %g%s" % (kind.low, kind.high, unit)
    return "reads %g%s, outside what it can be (%s)" % (value, unit, between)


def _kind(name: str) -> Optional[Kind]:
    fitting = [start for start in KINDS if name.startswith(start)]
    return KINDS[max(fitting, key=len)] if fitting else None


def _fits(name: str, value: float) -> bool:
    kind = _kind(name)
    return kind is not None and kind.low <= value <= kind.high


def _apart(values: Mapping[str, Value]) -> Doubts:
    """Temperatures with no other within reach; where there are two, nobody knows which is right."""
    told = ((n, v) for n, v in numbers(values).items() if n.startswith("temp/"))
    zones = {name: float(value) for name, value in told if value is not None}
    doubts: Doubts = {}
    for name, celsius in zones.items():
        others = [other for each, other in zones.items() if each != name]
        nearest = min(others, key=lambda other: abs(other - celsius), default=celsius)
        if abs(nearest - celsius) > _APART_C:
            doubts[name] = "reads %g °C, %g °C from the nearest other sensor" % (
                celsius,
                round(abs(nearest - celsius), 3),
            )
    return doubts


def _seen(
    rows: Iterable[Tuple[float, Mapping[str, Optional[float]]]], name: str
) -> List[Tuple[float, float]]:
    told = ((t_s, row.get(name)) for t_s, row in rows)
    return [(t_s, value) for t_s, value in told if value is not None]


def _span(values: Sequence[float]) -> float:
    return max(values, default=0.0) - min(values, default=0.0)
