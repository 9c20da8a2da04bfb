"""Batteries and mains as the kernel shows them in /sys/class/power_supply."""

from __future__ import annotations

from typing import Dict, List, Optional

from device_worker.telemetry.parsers.text import Raw, Values, bare, by_folder, integer, plain

_MAINS = ("Mains", "USB", "USB_C", "USB_PD", "USB_PD_DRP", "USB_DCP", "USB_CDP", "Wireless")


def power_supply(raw: Raw) -> Values:
    """The battery among a device's power supplies.

    From ``type``, ``scope``, ``online``, ``capacity``, ``status``, ``present``, ``temp`` (tenths of
    a degree) and ``voltage_now`` (µV). Batteries of mice and the like (scope Device) do not count.
    """
    own = [files for _, files in by_folder(raw) if plain(files.get("scope")) != "Device"]
    found: Values = {}
    online = [integer(f.get("online")) for f in own if plain(f.get("type")) in _MAINS]
    if online:
        found["supply/mains"] = _mains(online)
    for files in own:
        if plain(files.get("type")) != "Battery" or integer(files.get("present")) == 0:
            continue
        if found.get("battery/level") is not None:
            continue  # the first battery that tells its level speaks for the device
        found.update(_battery(files))
    return found


def mains(raw: Raw) -> Values:
    """Only ``supply/mains`` of `power_supply`: as a power mode it must stand alone."""
    return {"supply/mains": power_supply(raw).get("supply/mains")}


def _mains(online: List[Optional[int]]) -> Optional[int]:
    """1 when any source is on, 0 when all are known to be off, else unknown."""
    if any(online):
        return 1
    return 0 if all(value == 0 for value in online) else None


def _battery(files: Dict[str, Optional[str]]) -> Values:
    level, volts = integer(files.get("capacity")), integer(files.get("voltage_now"))
    found: Values = {"battery/level": level if level is not None and 0 <= level <= 100 else None}
    if "status" in files:
        found["battery/status"] = plain(files["status"])
    if "temp" in files:
        found["temp/battery"] = bare(integer(files["temp"]))
    if "voltage_now" in files:
        found["volt/battery"] = volts / 1000 if volts is not None and volts > 0 else None
    return found
