"""Conditions: what is done to a device or its inputs while a cell runs, from their short texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from orchestrator.matrix.fields import NAME_PATTERN, problem

MAX_REPEATS = 100_000
SOAK_RANGE_C = (30.0, 110.0)
HOLD_S = 60.0
HEAT_S = 900.0
"""Unless the matrix says otherwise. Seconds, as all times here."""

MAX_SEED = 2**31 - 1

Kind = Literal["clean", "repeat", "soak", "power", "order", "spot"]

_REPEAT = re.compile(r"repeat:([1-9][0-9]{0,5})")
_SOAK = re.compile(r"soak:([0-9]{2,3}(?:\.[0-9]+)?)C(?:/([1-9][0-9]{0,4})s)?")
_ORDER = re.compile(r"order:(0|[1-9][0-9]{0,9})")
_SPOT = re.compile(r"spot:([1-9][0-9]{0,8})@(0|[1-9][0-9]{0,9})")
_POWER = re.compile(rf"power:({NAME_PATTERN})")


@dataclass(frozen=True)
class Condition:
    """A condition of a cell, parsed.

    ``repeat``: passes of ``repeat:N``. ``target_c``, ``hold_s``: of ``soak:75C/60s``; the matrix'
    ``gate.heat_s`` says how long heating up may take. ``mode``: of ``power:MODE``. ``seed``: of
    ``order:SEED`` and ``spot:N@SEED``, which draws ``drawn`` samples and runs no more.
    """

    kind: Kind
    repeat: int | None = None
    target_c: float | None = None
    hold_s: float = HOLD_S
    mode: str | None = None
    seed: int | None = None
    drawn: int | None = None

    def above(self, ceiling_c: float | None) -> str | None:
        """Why a device that is stopped at ``ceiling_c`` can never soak like this, or None."""
        if ceiling_c is None or self.target_c is None or self.target_c < ceiling_c:
            return None
        return f"a run is stopped above {ceiling_c:g} °C, before it could soak"


def parse_condition(text: str) -> Condition:
    """Parse a condition as matrices write it.

    ``clean``, ``repeat:N``, ``soak:75C`` (``/Ns`` to hold), ``power:MODE``, ``order:SEED``,
    ``spot:N@SEED``; all else is refused.

    Raises what a pydantic validator may raise: E-MATRIX-CONDITION.
    """
    if text == "clean":
        return Condition("clean")
    if (match := _REPEAT.fullmatch(text)) and 2 <= int(match[1]) <= MAX_REPEATS:
        return Condition("repeat", repeat=int(match[1]))
    if match := _SOAK.fullmatch(text):
        low, high = SOAK_RANGE_C
        if low <= (target := float(match[1])) <= high:
            return Condition("soak", target_c=target, hold_s=float(match[2] or HOLD_S))
    if match := _POWER.fullmatch(text):
        return Condition("power", mode=match[1])
    if (match := _ORDER.fullmatch(text)) and int(match[1]) <= MAX_SEED:
        return Condition("order", seed=int(match[1]))
    if (match := _SPOT.fullmatch(text)) and int(match[2]) <= MAX_SEED:
        return Condition("spot", drawn=int(match[1]), seed=int(match[2]))
    raise problem(
        "E-MATRIX-CONDITION",
        f"{text!r:.40} is not a known condition",
        fix=f"'clean'; 'repeat:N', N from 2 to {MAX_REPEATS}; 'soak:75C' or 'soak:75C/60s', "
        f"{SOAK_RANGE_C[0]:g} to {SOAK_RANGE_C[1]:g} °C; 'power:MODE'; 'order:SEED', SEED from 0; "
        "'spot:N@SEED'",
    )


def spot(drawn: int, seed: int) -> str:
    """The text of the condition under which ``drawn`` samples are drawn by ``seed``."""
    return f"spot:{drawn}@{seed}"
