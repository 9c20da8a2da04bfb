"""Android's own services: dumpsys is primary, since SELinux may hide /sys from the shell."""

from __future__ import annotations

import re
from typing import Dict, List, Optional

from device_worker.telemetry.parsers.text import (
    Raw,
    Values,
    bare,
    decimal,
    first,
    integer,
    plain,
)

_TEMPERATURE = re.compile(r"Temperature\{([^}]{1,400})\}")
_FIELD = re.compile(r"(m[A-Za-z]{1,20})=([^,}]{0,64})")
_TYPES = {
    0: "cpu",
    1: "gpu",
    2: "battery",
    3: "skin",
    4: "usb",
    5: "amplifier",
    9: "npu",
    10: "tpu",
    11: "display",
    12: "modem",
    13: "soc",
    14: "wifi",
    15: "camera",
    16: "flashlight",
    17: "speaker",
    18: "ambient",
    19: "pogo",
}
"""mType -> kind. What is not listed (6 to 8: the battery's current limits in V, A, %) or not known
(-1) is not a temperature that anything may be concluded from."""
_CURRENT = "Current temperatures from HAL"
OVERRIDE = "flags/thermal_override"
"""1 while the thermal status is a forced one."""
_ABSENT = 0.0
_LINE = re.compile(r"\s*([A-Za-z][A-Za-z ]{0,40}): ?(.*)")
_STATUS = {2: "charging", 3: "discharging", 4: "not charging", 5: "full"}
_PROPERTY = re.compile(r"^\[([^\]]{1,200})\]: \[(.{0,1000}?)\]$", re.MULTILINE | re.DOTALL)


def thermalservice(raw: Raw) -> Values:
    """``dumpsys thermalservice``: current temperatures from the HAL, and the thermal status.

    Cached temperatures are not read: they may be many degrees and minutes away. Without a HAL
    nothing is known, and its status 0 says nothing; nor does one that somebody forced (``cmd
    thermalservice override-status``), while temperatures go on being the HAL's.
    """
    lines = [line.strip() for line in (first(raw) or "").splitlines()]
    status = override = None
    ready, current = True, False
    found: Values = {}
    for line in lines:
        if line.startswith("IsStatusOverride:"):
            override = {"true": 1, "false": 0}.get(line.partition(":")[2].strip())
        elif line.startswith("Thermal Status:"):
            status = integer(line.partition(":")[2])
        elif line.startswith("HAL Ready:"):
            ready = line.partition(":")[2].strip() == "true"
        elif line.endswith(":"):
            current = line.startswith(_CURRENT)
        elif current:
            _temperature(found, line)
    found["status/thermal"] = status if ready and not override else None
    if override is not None:
        found[OVERRIDE] = override
    return found


def _temperature(found: Values, line: str) -> None:
    match = _TEMPERATURE.match(line)
    fields = dict(_FIELD.findall(match[1])) if match else {}
    number = integer(fields.get("mType"))
    kind = None if number is None else _TYPES.get(number)
    if kind:
        value = decimal(fields.get("mValue"))
        name = plain(fields.get("mName")) or "?"
        found["temp/%s/%s" % (kind, name)] = None if value == _ABSENT else bare(value)


def dumpsys_battery(raw: Raw) -> Values:
    """``dumpsys battery``: its first block only, an event log may follow that repeats the names.

    Where updates were stopped (``dumpsys battery set``), what it says is not the device's state.
    """
    fields, stopped = _first_block(first(raw) or "")
    found: Values = {
        "supply/mains": None if stopped else _supplied(fields),
        "battery/level": None if stopped else _level(fields),
    }
    if stopped:
        return found
    if integer(fields.get("status")) in _STATUS:
        found["battery/status"] = _STATUS[int(fields["status"])]
    if "temperature" in fields:
        absent = fields.get("present") == "false"
        found["temp/battery"] = None if absent else bare(integer(fields["temperature"]))
    if "voltage" in fields:
        volts = integer(fields["voltage"])
        found["volt/battery"] = volts if volts is not None and volts > 0 else None
    return found


def _first_block(text: str) -> tuple[Dict[str, str], bool]:
    fields: Dict[str, str] = {}
    stopped = False
    for line in text.splitlines():
        if line.lstrip().startswith("[") or (not line.strip() and fields):
            break
        stopped = stopped or "UPDATES STOPPED" in line
        match = _LINE.fullmatch(line)
        if match and match[2]:
            fields.setdefault(match[1], match[2].strip())
    return fields, stopped


def _supplied(fields: Dict[str, str]) -> Optional[int]:
    said: List[str] = [value for name, value in fields.items() if name.endswith(" powered")]
    if "true" in said:
        return 1
    return 0 if said and all(value == "false" for value in said) else None


def _level(fields: Dict[str, str]) -> Optional[float]:
    level, scale = integer(fields.get("level")), integer(fields.get("scale", "100"))
    if fields.get("present") == "false" or level is None or not scale or not 0 <= level <= scale:
        return None
    return level * 100 / scale


def getprop(raw: Raw) -> Values:
    """``getprop``: ``[name]: [value]``, of which the ones that identify a device."""
    props = {match[1]: plain(match[2]) for match in _PROPERTY.finditer(first(raw) or "")}

    def joined(*names: str) -> Optional[str]:
        return " ".join(x for x in (props.get(name) for name in names) if x) or None

    release = props.get("ro.build.version.release")
    return {
        "hardware": joined("ro.product.manufacturer", "ro.product.model"),
        "serial": props.get("ro.serialno") or props.get("ro.boot.serialno"),
        "fingerprint": props.get("ro.build.fingerprint"),
        "os": "Android %s" % release if release else None,
        "sdk": integer(props.get("ro.build.version.sdk")),
        "abi": props.get("ro.product.cpu.abi"),
        "soc": joined("ro.soc.manufacturer", "ro.soc.model") or props.get("ro.board.platform"),
    }
