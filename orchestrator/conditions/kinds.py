"""The kinds of conditions that Assay has. `register` takes further ones."""

from __future__ import annotations

import re

from orchestrator.conditions.condition import (
    CLEAN,
    HOLD_S,
    Condition,
    Draw,
    Heat,
    Kind,
    register,
)

MAX_REPEATS = 100_000
SOAK_RANGE_C = (30.0, 110.0)
MAX_SEED = 2**31 - 1

_REPEAT = re.compile(r"[1-9][0-9]{0,5}")
_SOAK = re.compile(r"([0-9]{2,3}(?:\.[0-9]+)?)C(?:/([1-9][0-9]{0,4})s)?")
_MODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}")  # as any name in a matrix
_SEED = re.compile(r"0|[1-9][0-9]{0,9}")
_SPOT = re.compile(r"([1-9][0-9]{0,8})@(0|[1-9][0-9]{0,9})")


def _clean(text: str, rest: str | None) -> Condition | None:
    return Condition(text, timed=True) if rest is None else None


def _repeat(text: str, rest: str | None) -> Condition | None:
    if not _REPEAT.fullmatch(rest or "") or not 2 <= int(rest or "") <= MAX_REPEATS:
        return None
    return Condition(text, passes=int(rest or ""), few=True, neutral=True)


def _soak(text: str, rest: str | None) -> Condition | None:
    match = _SOAK.fullmatch(rest or "")
    low, high = SOAK_RANGE_C
    if match is None or not low <= float(match[1]) <= high:
        return None
    heat = Heat(float(match[1]), float(match[2] or HOLD_S))
    return Condition(text, few=True, heat=heat, recorded=("soak", _UNRECORDED))


def _power(text: str, rest: str | None) -> Condition | None:
    if not _MODE.fullmatch(rest or ""):
        return None
    return Condition(text, mode=rest, recorded=("power", _UNRECORDED))


def _order(text: str, rest: str | None) -> Condition | None:
    if not _SEED.fullmatch(rest or "") or int(rest or "") > MAX_SEED:
        return None
    return Condition(text, order=int(rest or ""), recorded=("order", _UNSHUFFLED))


def _spot(text: str, rest: str | None) -> Condition | None:
    match = _SPOT.fullmatch(rest or "")
    if match is None or int(match[2]) > MAX_SEED:
        return None
    return Condition(text, draw=Draw(int(match[1]), int(match[2])), timed=True)


def spot(draw: Draw) -> str:
    """The text of the condition that runs a draw."""
    return f"spot:{draw.count}@{draw.seed}"


_UNRECORDED = "the device's state was not recorded"
_UNSHUFFLED = "the worker did not shuffle the samples"

register(Kind(CLEAN, "'clean'", _clean))
register(Kind("repeat", f"'repeat:N', N from 2 to {MAX_REPEATS}", _repeat))
_range = f"{SOAK_RANGE_C[0]:g} to {SOAK_RANGE_C[1]:g} °C"
register(Kind("soak", f"'soak:75C' or 'soak:75C/60s', {_range}", _soak))
register(Kind("power", "'power:MODE'", _power))
register(Kind("order", "'order:SEED', SEED from 0", _order))
register(Kind("spot", "'spot:N@SEED'", _spot))
