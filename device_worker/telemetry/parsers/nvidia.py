"""NVIDIA cards of a PC: ``nvidia-smi --query-gpu=… --format=csv``."""

from __future__ import annotations

import re
from typing import Dict, Optional, Tuple

from device_worker.telemetry.parsers.text import Raw, Values, decimal, degrees, first

_COLUMNS: Dict[str, Tuple[str, Dict[str, float]]] = {
    "temperature.gpu": ("temp", {"": 1.0, "C": 1.0}),
    "power.draw": ("power", {"W": 1000.0}),
    "clocks.sm": ("freq", {"MHz": 1000.0}),
    "clocks.current.sm": ("freq", {"MHz": 1000.0}),
    "utilization.gpu": ("load", {"%": 1.0}),
}
"""Column -> our kind of sensor, and the units it may have -> how many of ours one of them is."""
_HEAD = re.compile(r"([a-z_.]{1,60})(?: \[([A-Za-z%]{1,8})\])?")
_CELL = re.compile(r"(-?[0-9.]{1,18})(?: ?([A-Za-z%]{1,8}))?")
_MOST = 64
"""Lines that are looked at: no machine has so many cards."""


def nvidia_smi(raw: Raw) -> Values:
    """The first line names the columns, each further one is a card; columns not known are left out.

    ``[N/A]``, ``[Not Supported]``, ``ERR!`` and the like are unknown, and so is a number whose unit
    neither its cell nor its column tells.
    """
    rows = [line.split(",") for line in (first(raw) or "").splitlines()[:_MOST] if line.strip()]
    heads = [_HEAD.fullmatch(cell.strip()) for cell in rows[0]] if rows else []
    found: Values = {}
    for card, cells in enumerate(rows[1:]):
        for head, text in zip(heads, cells):
            if head is not None and head[1] in _COLUMNS:
                kind, units = _COLUMNS[head[1]]
                value = _number(text.strip(), head[2], units)
                found["%s/gpu%d" % (kind, card)] = degrees(value) if kind == "temp" else value
    return found


def _number(text: str, of_column: Optional[str], units: Dict[str, float]) -> Optional[float]:
    cell = _CELL.fullmatch(text)
    factor = units.get(cell[2] or of_column or "") if cell else None
    value = decimal(cell[1]) if cell else None
    return None if value is None or factor is None else round(value * factor, 3)
