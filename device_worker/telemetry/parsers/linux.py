"""What any Linux kernel tells in /sys and /proc."""

from __future__ import annotations

import os
import re
from typing import Dict, List, Optional

from device_worker.telemetry.parsers.text import (
    Raw,
    Value,
    Values,
    bare,
    by_folder,
    first,
    integer,
    plain,
)

_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
_PLACEHOLDER = "PMIC-Die"
_NO_SERIAL = ("", "0", "none", "default string", "not specified", "to be filled by o.e.m.")
_INPUT = re.compile(r"(temp|in|power|curr|fan)([0-9]+)_input")
_KINDS = {"temp": "temp", "in": "volt", "power": "power", "curr": "curr", "fan": "fan"}
"""hwmon's kind -> ours. It counts in millidegrees, mV, µW, mA and turns a minute."""


def thermal_zones(raw: Raw) -> Values:
    """``type`` and ``temp`` of /sys/class/thermal/thermal_zone*: millidegrees, if all is well.

    A Jetson's PMIC-Die is one number for ever (50 or 100 °C) and tells no temperature.
    """
    found: Values = {}
    for folder, files in by_folder(raw):
        if "temp" not in files:
            continue
        kind, zone = plain(files.get("type")), os.path.basename(folder)
        value = None if kind == _PLACEHOLDER else bare(integer(files["temp"]))
        found["temp/%s/%s" % (zone, kind) if kind else "temp/%s" % zone] = value
    return found


def hwmon(raw: Raw) -> Values:
    """``name``, ``*_input`` and ``*_label`` of /sys/class/hwmon/hwmon*.

    A value is called ``<kind>/<chip>/<label>``; of several chips of one name each also by its
    folder, such as ``temp/nvme.hwmon4/Composite``.
    """
    chips = [(folder, plain(files.get("name")), files) for folder, files in by_folder(raw)]
    names = [name for _, name, _ in chips]
    found: Values = {}
    for folder, name, files in chips:
        place = os.path.basename(folder)
        chip = place if name is None else name if names.count(name) == 1 else name + "." + place
        for file, text in files.items():
            match = _INPUT.fullmatch(file)
            if match is None:
                continue
            label = plain(files.get(match[1] + match[2] + "_label")) or match[1] + match[2]
            found["%s/%s/%s" % (_KINDS[match[1]], chip, label)] = _input(match[1], integer(text))
    return found


def _input(kind: str, value: Optional[int]) -> Value:
    if kind == "temp":
        return bare(value)
    return value / 1000 if kind == "power" and value is not None else value


def hwmon_cpu(raw: Raw) -> Values:
    """As `hwmon`, of the chips inside processors only: a warm disk says nothing of the CPU."""
    keep: Dict[str, Optional[str]] = {}
    for folder, files in by_folder(raw):
        if plain(files.get("name")) in _CPU_CHIPS:
            keep.update({os.path.join(folder, name): text for name, text in files.items()})
    return hwmon(keep)


def cpu_frequencies(raw: Raw) -> Values:
    """kHz of each cpu*/cpufreq/scaling_cur_freq; ``<unknown>`` and 0 are unknown."""
    found: Values = {}
    for path, text in raw.items():
        parts = path.split("/")
        value = integer(text)
        name = parts[-3] if len(parts) > 2 else path
        found["freq/%s" % name] = value if value is not None and value > 0 else None
    return found


def throttle_counts(raw: Raw) -> Values:
    """cpu*/thermal_throttle/{core,package}_throttle_count of x86, summed over all CPUs.

    None when one of them cannot be read: a sum without it would seem to have fallen.
    """
    counts: Dict[str, List[Optional[int]]] = {}
    for path, text in raw.items():
        counts.setdefault(os.path.basename(path), []).append(integer(text))
    found: Values = {}
    for name, values in counts.items():
        known = [value for value in values if value is not None]
        found["flags/%s" % name] = sum(known) if len(known) == len(values) else None
    return found


def governor(raw: Raw) -> Values:
    """The cpufreq governor; where the CPUs have several, all of them, joined with ``+``."""
    names = sorted({name for name in map(plain, raw.values()) if name})
    return {"governor": "+".join(names) or None} if raw else {}


def meminfo(raw: Raw) -> Values:
    """Bytes of MemAvailable from /proc/meminfo (which counts in KiB)."""
    return {"mem/free": _kib(raw, "MemAvailable")}


def memory(raw: Raw) -> Values:
    """Bytes of MemTotal from /proc/meminfo, as a fact."""
    return {"memory": _kib(raw, "MemTotal")}


def _kib(raw: Raw, name: str) -> Optional[int]:
    for line in (first(raw) or "").splitlines():
        key, _, rest = line.partition(":")
        if key == name and rest.split():
            value = integer(rest.split()[0])
            return None if value is None else value * 1024
    return None


def uname(raw: Raw) -> Values:
    """``uname -srm``: system, kernel release, machine."""
    words = (first(raw) or "").split()
    if len(words) < 3:
        return {"machine": None, "kernel": None}
    return {"machine": words[-1], "kernel": " ".join(words[1:-1])}


def os_release_fields(text: str) -> Dict[str, str]:
    """os-release(5) as a dict, quotes removed."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def os_release(raw: Raw) -> Values:
    """/etc/os-release."""
    return {"os": plain(os_release_fields(first(raw) or "").get("PRETTY_NAME"))}


def device_tree(raw: Raw) -> Values:
    """``model``, ``serial-number`` and ``compatible`` of the device tree, wherever it is shown.

    ``compatible`` holds several strings, each ended by NUL: joined with spaces.
    """
    names = {"model": "hardware", "serial-number": "serial", "compatible": "compatible"}
    found: Values = {}
    for path, text in raw.items():
        name = names.get(os.path.basename(path))
        if name and found.get(name) is None:
            found[name] = plain(text)
    return found


def dmi(raw: Raw) -> Values:
    """/sys/class/dmi/id: ``sys_vendor`` and ``product_name`` make the hardware."""
    files = {os.path.basename(path): plain(text) for path, text in raw.items()}
    found: Values = {}
    if "product_name" in files:
        words = [files.get("sys_vendor"), files["product_name"]]
        found["hardware"] = " ".join(word for word in words if word) or None
    if "product_serial" in files:
        serial = files["product_serial"]
        found["serial"] = None if (serial or "").lower() in _NO_SERIAL else serial
    return found


def cpuinfo(raw: Raw) -> Values:
    """/proc/cpuinfo: the processor's name or ARM part, and a Raspberry Pi's serial and revision."""
    fields: Dict[str, str] = {}
    for line in (first(raw) or "").splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() not in fields:
            fields[name.strip()] = value.strip()
    part, maker = fields.get("CPU part"), fields.get("CPU implementer")
    arm = "ARM %s:%s" % (maker, part) if part and maker else None
    # ARM kernels call every model the same; the part number tells them apart.
    found: Values = {"cpu": plain(arm) or plain(fields.get("model name"))}
    for name, fact in (("Serial", "serial"), ("Revision", "revision")):
        if fields.get(name, "").strip("0"):
            found[fact] = plain(fields[name])
    return found
