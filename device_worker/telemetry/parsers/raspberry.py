"""The firmware of a Raspberry Pi: throttle flags, its own temperature and voltages."""

from __future__ import annotations

import re
from typing import List, Optional

from device_worker.telemetry.parsers.text import (
    Raw,
    Values,
    by_folder,
    decimal,
    degrees,
    first,
    integer,
    plain,
)

BITS = {0: "under-voltage", 1: "ARM frequency capped", 2: "throttled", 3: "soft temperature limit"}
NOW = 0xF
"""The bits that tell the state of this moment; 16 higher, the same since the board was started."""
_SINCE = 16
_THROTTLED = re.compile(r"throttled=(0x[0-9a-fA-F]{1,16})\s*")
_TEMP = re.compile(r"temp=(-?[0-9.]{1,12})'?C?\s*")
_VOLTS = re.compile(r"volt=([0-9.]{1,12})V\s*")


def throttled_sysfs(raw: Raw) -> Values:
    """/sys/devices/platform/soc/soc:firmware/get_throttled: hexadecimal, printed without 0x."""
    if not raw:
        return {}
    text = (first(raw) or "").strip()
    found = integer(text, 16) if re.fullmatch(r"[0-9a-fA-F]{1,16}", text) else None
    return {"flags/throttled": found}


def vcgencmd_throttled(raw: Raw) -> Values:
    """``vcgencmd get_throttled``: ``throttled=0x50005``."""
    match = _THROTTLED.fullmatch(first(raw) or "")
    return {"flags/throttled": int(match[1], 16) if match else None}


def vcgencmd_temp(raw: Raw) -> Values:
    """``vcgencmd measure_temp``: ``temp=42.2'C``, by which the firmware throttles."""
    match = _TEMP.fullmatch(first(raw) or "")
    return {"temp/firmware": degrees(decimal(match[1])) if match else None}


def vcgencmd_volts(raw: Raw) -> Values:
    """``vcgencmd measure_volts``: ``volt=0.8500V`` of the core."""
    match = _VOLTS.fullmatch(first(raw) or "")
    value = decimal(match[1]) if match else None
    return {"volt/core": round(value * 1000, 3) if value else None}


def rpi_volt(raw: Raw) -> Values:
    """``name`` and ``in0_lcrit_alarm`` of hwmon: 1 when the kernel saw under-voltage just now."""
    for _, files in by_folder(raw):
        if plain(files.get("name")) == "rpi_volt" and "in0_lcrit_alarm" in files:
            alarm = integer(files["in0_lcrit_alarm"])
            return {"flags/under_voltage": alarm if alarm in (0, 1) else None}
    return {}


def words(flags: int) -> List[str]:
    """What the throttle flags say: ``under-voltage now``, ``throttled since start`` and so on."""
    return [
        "%s %s" % (name, when)
        for shift, when in ((0, "now"), (_SINCE, "since start"))
        for bit, name in BITS.items()
        if flags >> shift & 1 << bit
    ]


def happened(before: Optional[int], after: Optional[int]) -> Optional[List[str]]:
    """What came up between two looks at the flags; None where either is unknown.

    The bits "since start" stay set until the board is restarted: those set before tell of another
    time. Those set in between tell of a moment that no look may have met.
    """
    if before is None or after is None:
        return None
    new = (after & ~before) >> _SINCE | after & NOW
    return [name for bit, name in BITS.items() if new & 1 << bit]
