"""What devices print, as numbers with stable names: pure parsers, found by name in ``PARSERS``.

Each takes the raw texts of one source: path -> text for files, {"": text} for a command's output,
None where it could not be read. It returns values by sensor name, None where the sensor is there
but its value is not known (powered off, placeholder). Missing is None, never 0: a missing sensor
does not mean a cool device. A parser never raises for text it does not understand.

Names: ``temp/<zone>`` degrees Celsius, or a ``Bare`` number whose unit the text does not tell (for
``telemetry.plausible``), ``freq/<unit>`` kHz, ``power/<rail>`` mW, ``volt/<rail>`` mV,
``curr/<rail>`` mA, ``fan/<name>`` turns a minute, ``load/<unit>`` percent, ``flags/<name>`` bits or
counts whose change spoils timings, ``status/<name>`` a level whose change does, ``battery/level``
percent, ``supply/mains`` 1 or 0, ``mem/free`` bytes. Facts have plain names: ``hardware``,
``serial``, ``governor``, …
A parser that tells a mode gives it as its first value (wire.PowerMode).
"""

from __future__ import annotations

from typing import Dict, FrozenSet

from device_worker.telemetry.parsers import (
    android,
    coral,
    jetson,
    linux,
    nvidia,
    power,
    raspberry,
)
from device_worker.telemetry.parsers.text import Parser, Raw, Value

__all__ = ["FACTS", "PARSERS", "Parser", "Raw", "Value"]

PARSERS: Dict[str, Parser] = {
    "thermal_zones": linux.thermal_zones,
    "hwmon": linux.hwmon,
    "hwmon_cpu": linux.hwmon_cpu,
    "cpu_frequencies": linux.cpu_frequencies,
    "throttle_counts": linux.throttle_counts,
    "governor": linux.governor,
    "meminfo": linux.meminfo,
    "memory": linux.memory,
    "uname": linux.uname,
    "os_release": linux.os_release,
    "device_tree": linux.device_tree,
    "dmi": linux.dmi,
    "cpuinfo": linux.cpuinfo,
    "power_supply": power.power_supply,
    "mains": power.mains,
    "throttled_sysfs": raspberry.throttled_sysfs,
    "vcgencmd_throttled": raspberry.vcgencmd_throttled,
    "vcgencmd_temp": raspberry.vcgencmd_temp,
    "vcgencmd_volts": raspberry.vcgencmd_volts,
    "rpi_volt": raspberry.rpi_volt,
    "tegrastats": jetson.tegrastats,
    "nvpmodel": jetson.nvpmodel,
    "nvpmodel_id": jetson.nvpmodel_id,
    "jetson_clocks": jetson.jetson_clocks,
    "ina3221": jetson.ina3221,
    "l4t": jetson.l4t,
    "thermalservice": android.thermalservice,
    "dumpsys_battery": android.dumpsys_battery,
    "getprop": android.getprop,
    "nvidia_smi": nvidia.nvidia_smi,
    "apex": coral.apex,
    "coral_usb": coral.coral_usb,
    "coral_pcie": coral.coral_pcie,
}

FACTS: Dict[str, FrozenSet[str]] = {
    "governor": frozenset({"governor"}),
    "memory": frozenset({"memory"}),
    "uname": frozenset({"machine", "kernel"}),
    "os_release": frozenset({"os"}),
    "device_tree": frozenset({"hardware", "serial", "compatible"}),
    "dmi": frozenset({"hardware", "serial"}),
    "cpuinfo": frozenset({"cpu", "serial", "revision"}),
    "nvpmodel": frozenset({"power_mode", "power_mode_id", "fan_mode"}),
    "l4t": frozenset({"l4t"}),
    "getprop": frozenset({"hardware", "serial", "fingerprint", "os", "sdk", "abi", "soc"}),
    "coral_usb": frozenset({"coral_usb", "coral_usb_speed"}),
    "coral_pcie": frozenset({"coral_pcie"}),
}
"""Which facts a parser may tell, so that nothing else need be asked for one of them."""
