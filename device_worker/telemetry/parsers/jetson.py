"""NVIDIA Jetson: tegrastats of every JetPack, power modes, INA3221 rails, the L4T release."""

from __future__ import annotations

import os
import re
from typing import Dict, Optional

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

_WORD = re.compile(r"(?:\[[^\]]*\]|\([^)]*\)|\S)+")
_CPUS = re.compile(r"\bCPU \[([^\]]*)\]")
_CORE = re.compile(r"([0-9]{1,3})%@([0-9]{1,6})")
_UNIT = re.compile(r"([0-9]{1,3})%(?:@\[?([0-9]{1,6})[0-9,]*\]?)?")
_UNITS = {"GR3D_FREQ": "gpu", "EMC_FREQ": "emc"}
_TEMP = re.compile(r"([A-Za-z][A-Za-z0-9_]{0,31})@(-?[0-9.]{1,9})C(?:/.*)?")
_RAIL = re.compile(r"([0-9]{1,9})(mW)?/[0-9]{1,9}(?:mW)?(?:/[0-9]{1,9}(?:mW)?)?")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,31}")
_NO_RAIL = ("NC", "RAM", "SWAP", "IRAM")
_LONGEST = 8192
"""Characters of a line that are looked at: ten times what a board with twelve cores prints."""
_HELD = r"MinFreq=([0-9]{1,12}) MaxFreq=([0-9]{1,12})\b"
_HELD_CORE = re.compile(r"^cpu[0-9]{1,3}: +Online=([01]) .{0,80}?" + _HELD, re.MULTILINE)
_HELD_GPU = re.compile(r"^GPU " + _HELD, re.MULTILINE)
_PLACEHOLDER = "PMIC"
"""Its temperature is one number for ever (50 or 100)."""


def tegrastats(raw: Raw) -> Values:
    """The newest line of tegrastats: loads, clocks (MHz there), temperatures, rails.

    A rail's first number is the present power, without a unit on JetPack 4 and in mW later. A
    temperature of -256 °C means powered off. An ``off`` core or engine is unknown.
    """
    lines = (first(raw) or "").splitlines()
    line = next((x for x in reversed(lines) if "RAM " in x), "")[:_LONGEST]
    found: Values = {}
    cores = _CPUS.search(line)
    if cores:
        for number, text in enumerate(cores[1].split(",")):
            match = _CORE.fullmatch(text.strip())
            found["load/cpu%d" % number] = int(match[1]) if match else None
            found["freq/cpu%d" % number] = int(match[2]) * 1000 or None if match else None
    tokens = _WORD.findall(_CPUS.sub("", line))
    for name, text in zip(tokens, [*tokens[1:], ""]):
        temp = _TEMP.fullmatch(name)
        if temp:
            if temp[1] != _PLACEHOLDER:
                found["temp/%s" % temp[1]] = degrees(decimal(temp[2]))
        elif name in _UNITS:
            _engine(found, _UNITS[name], text)
        elif _NAME.fullmatch(name) and name not in _NO_RAIL:
            rail = _RAIL.fullmatch(text)
            if rail:
                found["power/%s" % name] = int(rail[1])
    return found


def _engine(found: Values, unit: str, text: str) -> None:
    """``34%``, ``2%@204``, ``0%@[114]``, ``12%@[1300,1300]``: load, and clock where it is told."""
    match = _UNIT.fullmatch(text)
    found["load/%s" % unit] = int(match[1]) if match else None
    if match and match[2]:
        # 0 MHz: the unit is off, which is no clock.
        found["freq/%s" % unit] = int(match[2]) * 1000 or None


def nvpmodel(raw: Raw) -> Values:
    """``nvpmodel -q``, with or without ``--verbose``: the mode's name, its number, the fan's."""
    lines = [line.strip() for line in (first(raw) or "").splitlines()]
    found: Values = {"power_mode": None, "power_mode_id": None}
    for i, line in enumerate(lines):
        _, mark, name = line.partition("NV Power Mode:")
        if mark and found["power_mode"] is None:
            found["power_mode"] = plain(name)
            number = integer(lines[i + 1]) if i + 1 < len(lines) else None
            found["power_mode_id"] = number
        elif line.startswith("NV Fan Mode:"):
            found["fan_mode"] = plain(line.partition(":")[2])
    return found


def nvpmodel_id(raw: Raw) -> Values:
    """Of `nvpmodel` only the number, as a level: it is what ``nvpmodel -m`` takes to go back."""
    return {"status/power_mode": nvpmodel(raw)["power_mode_id"]}


def jetson_clocks(raw: Raw) -> Values:
    """``jetson_clocks --show``: 1 where it holds every clock at its highest, else 0.

    Held is what may not go lower: of each core that is online and of the GPU, MinFreq equals
    MaxFreq. The cores alone say nothing, for some power modes leave them one frequency; nor does
    CurrentFreq, which heat lowers, or the memory's MinFreq, which stays. Only root may ask.
    """
    text = (first(raw) or "")[:_LONGEST]
    cores = [found[2] == found[3] for found in _HELD_CORE.finditer(text) if found[1] == "1"]
    gpus = [found[1] == found[2] for found in _HELD_GPU.finditer(text)]
    held = int(all(cores + gpus)) if cores and gpus else None
    return {"status/jetson_clocks": held}


def ina3221(raw: Raw) -> Values:
    """Rails of the INA3221.

    hwmon (``in1_label``, ``in1_input`` mV, ``curr1_input`` mA; power is their product) or, on
    JetPack 4, iio (``rail_name_0``, ``in_power0_input`` mW, ``in_voltage0_input`` mV). Inputs that
    are not connected have the label NC.
    """
    found: Values = {}
    for folder, files in by_folder(raw):
        for file, text in files.items():
            label, number = _rail(file, text)
            if label is None or number is None or label == "NC":
                continue
            rail = label if "power/" + label not in found else _place(folder) + "." + label
            values = _iio(files, number) if file.startswith("rail_name") else _hwmon(files, number)
            for kind, value in values.items():
                found["%s/%s" % (kind, rail)] = value
    return found


def _rail(file: str, text: Optional[str]) -> tuple[Optional[str], Optional[str]]:
    match = re.fullmatch(r"in([0-9]+)_label|rail_name_([0-9]+)", file)
    return (plain(text), match[1] or match[2]) if match else (None, None)


def _place(folder: str) -> str:
    """The chip's address on its bus (``1-0041``): boards with two name rails alike."""
    found = re.search(r"[0-9]+-[0-9a-f]{4}", folder)
    return found[0] if found else os.path.basename(folder)


def _hwmon(files: Dict[str, Optional[str]], number: str) -> Dict[str, Optional[float]]:
    if "curr%s_input" % number not in files:
        return {}  # the shunts' own voltages, and their sum
    volts = integer(files.get("in%s_input" % number))
    amps = integer(files.get("curr%s_input" % number))
    power = None if volts is None or amps is None else volts * amps / 1000
    return {"power": power, "volt": volts}


def _iio(files: Dict[str, Optional[str]], number: str) -> Dict[str, Optional[float]]:
    found: Dict[str, Optional[float]] = {"power": integer(files.get("in_power%s_input" % number))}
    if "in_voltage%s_input" % number in files:
        found["volt"] = integer(files["in_voltage%s_input" % number])
    return found


def l4t(raw: Raw) -> Values:
    """/etc/nv_tegra_release: ``# R35 (release), REVISION: 4.1, …`` is L4T 35.4.1."""
    match = re.search(r"R([0-9]{1,4}) \(release\), REVISION: ([0-9.]{1,12})", first(raw) or "")
    return {"l4t": "%s.%s" % (match[1], match[2]) if match else None}
