"""Coral Edge TPUs: the PCIe driver's temperature, and which of them are plugged in where."""

from __future__ import annotations

import os
from typing import Dict, List, Optional

from device_worker.telemetry.parsers.text import Raw, Values, bare, by_folder, integer, plain

_USB = {("1a6e", "089a"): "fresh", ("18d1", "9302"): "ready"}
"""A USB stick changes its ids with its first inference, when its firmware is loaded: by design."""
_PCIE = ("0x1ac1", "0x089a")
_OFF = -40_000
"""A chip that is off reads far below zero."""


def apex(raw: Raw) -> Values:
    """/sys/class/apex/apex_N/temp in millidegrees."""
    found: Values = {}
    for folder, files in by_folder(raw):
        if "temp" in files:
            value = integer(files["temp"])
            off = value is None or value < _OFF
            found["temp/%s" % os.path.basename(folder)] = None if off else bare(value)
    return found


def coral_usb(raw: Raw) -> Values:
    """``idVendor``, ``idProduct`` and ``speed`` (Mbit/s) of /sys/bus/usb/devices/*.

    ``coral_usb``: ``<port>:<state>`` of each stick; ``fresh`` before its first inference since it
    was plugged in, ``ready`` afterwards. The port stays, the ids do not.
    """
    sticks: List[str] = []
    speeds: List[str] = []
    for folder, files in by_folder(raw):
        ids = (_word(files, "idVendor"), _word(files, "idProduct"))
        state = _USB.get((ids[0] or "", ids[1] or ""))
        if state:
            sticks.append("%s:%s" % (os.path.basename(folder), state))
            speeds.append(_word(files, "speed") or "?")
    return {"coral_usb": " ".join(sticks) or None, "coral_usb_speed": " ".join(speeds) or None}


def coral_pcie(raw: Raw) -> Values:
    """``vendor`` and ``device`` of /sys/bus/pci/devices/*: the addresses of Edge TPUs."""
    places = [
        os.path.basename(folder)
        for folder, files in by_folder(raw)
        if (_word(files, "vendor"), _word(files, "device")) == _PCIE
    ]
    return {"coral_pcie": " ".join(places) or None}


def _word(files: Dict[str, Optional[str]], name: str) -> Optional[str]:
    return plain(files.get(name))
