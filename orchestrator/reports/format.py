"""Numbers and names as text, one way everywhere. Unknown is "–", never 0."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

DASH = "–"
NOT_AVAILABLE = "not available here"
TRUE_PAIR = "nearest-step"
"""The lineage that says nothing against comparing an INT8 file with its FP32 parent."""

MARKS: Mapping[str, str] = {
    "pass": "✓",
    "fail": "✗",
    "inconclusive": "?",
    "covered-by-class": "≈",
    "error": "!",
    "timeout": "!",
    "not_available": "∅",
    "not_applicable": "·",
}
"""A sign beside every verdict word, so that colour never carries the meaning alone."""

Rate = Mapping[str, Any]
"""{"k", "n", "rate", "low", "high"}: k of n, and the two-sided 95 % interval as fractions."""


def percent(fraction: float) -> str:
    """``fraction`` × 100 with one decimal, without a unit.

    More decimals where rounding would turn "almost none" into 0 or "almost all" into 100.
    """
    inexact = 0.0 < fraction < 1.0
    for digits in (1, 2, 3, 4):
        text = f"{100 * fraction:.{digits}f}"
        if not inexact or float(text) not in (0.0, 100.0):
            return text
    return "<0.0001" if fraction < 0.5 else ">99.9999"


def rate(value: Rate | None, *, level: bool = True) -> str:
    """``97.9 % (979/1000, 95 % CI 96.8–98.7)``; without "95 % CI" where a heading says it.

    A rate that lacks its interval is shown as the bare count: no percentage without one.
    """
    if value is None or not value.get("n"):
        return DASH
    text = counts(value)
    fraction, low, high = value.get("rate"), value.get("low"), value.get("high")
    if fraction is None or low is None or high is None:
        return text
    label = "95 % CI " if level else ""
    return f"{percent(fraction)} % ({text}, {label}{percent(low)}–{percent(high)})"


def counts(value: Rate | None) -> str:
    """``979/1000``, or a dash when nothing was counted."""
    if value is None or value.get("k") is None or not value.get("n"):
        return DASH
    return f"{value['k']}/{value['n']}"


def counts_in_range(value: Rate | None) -> str:
    """``979/1000 (96.8–98.7 %)``: the count and its 95 % interval, where room is short."""
    text = counts(value)
    if value is None or text == DASH or value.get("low") is None or value.get("high") is None:
        return text
    return f"{text} ({percent(value['low'])}–{percent(value['high'])} %)"


def share(fraction: float | None, n: int | None) -> str:
    """A fraction over ``n`` samples as the count it came from: ``812/1000``."""
    if fraction is None or not n:
        return DASH
    return f"{round(fraction * n)}/{n}"


def number(value: Any) -> str:
    """Any gate quantity: floats with four significant digits (never as 1e+04), the rest as is."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {number(item)}" for key, item in value.items()) or DASH
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(number(item) for item in value) or DASH
    return str(value)


def lineage(told: Mapping[str, Any]) -> str:
    """What a loss against the FP32 parent means, as `assay lineage` begins it."""
    return f"lineage {told['verdict']}: {told['reason']}"


def micros(value: float | None) -> str:
    """Microseconds in the unit a person would use."""
    if value is None:
        return DASH
    if value < 1000:
        return f"{value:.3g} µs" if value < 100 else f"{value:.0f} µs"
    if value < 1_000_000:
        return f"{value / 1000:.3g} ms"
    return seconds(value / 1_000_000)


def seconds(value: float | None) -> str:
    """Seconds; minutes and hours from 90 s on."""
    if value is None:
        return DASH
    if value < 10:
        return f"{value:.2f} s"
    if value < 90:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def state(cell: Mapping[str, Any]) -> str:
    """What a cell's condition came to on the device; a dash where it has none."""
    soak, power = cell.get("soak"), cell.get("power")
    told = [f"power mode {power}"] if power else []
    if soak:
        heat = "target reached" if soak["reached"] else "target NOT reached"
        hottest = (
            "temperature unknown" if soak["max_c"] is None else f"hottest {soak['max_c']:g} °C"
        )
        told.append(
            f"soak to {soak['target_c']:g} °C: {heat} in {seconds(soak['heat_s'])}, {hottest}, "
            f"held for {seconds(soak['hold_s'])}; {soak['mismatches']} of {soak['inferences']} "
            "outputs differ from the first pass"
        )
    return "; ".join(told) or DASH


def moment(unix: float | None) -> str:
    """Unix seconds as UTC, the same on every reader's machine."""
    if unix is None:
        return DASH
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def words(verdict: str) -> str:
    """``not_applicable`` → ``not applicable``."""
    return verdict.replace("_", " ")


CONTROL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What moves a cursor, changes colours or reorders what is read; a line's own end aside."""


def printable(text: str) -> str:
    """``text`` with control and bidirectional characters spelt out.

    Names and error texts come from devices and files; an escape sequence in one must not move the
    cursor, change colours or reorder what the reader sees.
    """
    if text.isascii() and text.isprintable():
        return text
    return CONTROL.sub(_spelt, text).replace("\n", "\\n")


def _spelt(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
