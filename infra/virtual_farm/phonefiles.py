"""The files that an emulated phone shows: properties, `dumpsys` texts, a half-open /sys.

On real phones the shell user may read some of /sys and is refused the rest, differently from
vendor to vendor; temperatures come from `dumpsys`.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import sysfs
from .config import Board
from .thermal import ThermalModel

PROPERTIES = "system/etc/properties"
DUMPS = "system/etc/dumpsys"
BATTERY, THERMAL = f"{DUMPS}/battery", f"{DUMPS}/thermalservice"
# Names of files in /sys that the shell user is refused.
UNREADABLE = ("temp", "scaling_max_freq", "cpuinfo_max_freq")
# How the temperatures of other places follow from the skin's, which is the model's.
CHIP_ABOVE_SKIN_C, BATTERY_BELOW_SKIN_C = 5.0, 1.0
FULL_MV, EMPTY_MV = 4350, 3400
# Thermal status (severity) as Android numbers it.
NONE, MODERATE, CRITICAL = 0, 2, 4


def properties(board: Board) -> str:
    """Return what getprop reads, one NAME=VALUE per line."""
    values = board.phone.properties if board.phone else {}
    return "".join(f"{name}={value}\n" for name, value in sorted(values.items()))


def battery(board: Board, model: ThermalModel, control: Mapping[str, float]) -> str:
    """Return `dumpsys battery`."""
    level = round(control.get("battery", board.phone.battery if board.phone else 0))
    plugged = bool(control.get("plugged", 1))
    status = 3 if not plugged else 5 if level == 100 else 2  # discharging, full, charging
    rows = {
        "AC powered": "false",
        "USB powered": str(plugged).lower(),
        "Wireless powered": "false",
        "Dock powered": "false",
        "Max charging current": "500000" if plugged else "0",
        "Max charging voltage": "5000000" if plugged else "0",
        "Charge counter": str(level * 45000),
        "status": str(status),
        "health": "2",
        "present": "true",
        "level": str(level),
        "scale": "100",
        "voltage": str(EMPTY_MV + (FULL_MV - EMPTY_MV) * level // 100),
        "temperature": str(round((model.temp_c - BATTERY_BELOW_SKIN_C) * 10)),
        "technology": "Li-ion",
    }
    if control.get("sensor_missing"):
        del rows["temperature"]
    lines = [f"  {key}: {value}\n" for key, value in rows.items()]
    return "Current Battery Service state:\n" + "".join(lines)


def thermalservice(board: Board, model: ThermalModel, control: Mapping[str, float]) -> str:
    """Return `dumpsys thermalservice`; the cached temperatures are old ones, as on real phones."""
    spec = board.thermal
    skin = model.temp_c
    status = CRITICAL if skin >= spec.critical_c else MODERATE if skin >= spec.trip_c else NONE
    level = round(control.get("battery", board.phone.battery if board.phone else 0))
    volts = (EMPTY_MV + (FULL_MV - EMPTY_MV) * level / 100) / 1000
    steps = len(board.frequencies_khz) - 1 - model.level
    ready = not control.get("sensor_missing")
    idle = spec.ambient_c + spec.idle_rise_c
    lines = [
        "IsStatusOverride: false",
        "ThermalEventListeners:",
        "\tcallbacks: 1",
        "\tkilled: false",
        "\tbroadcasts count: -1",
        "ThermalStatusListeners:",
        "\tcallbacks: 1",
        "\tkilled: false",
        "\tbroadcasts count: -1",
        f"Thermal Status: {status}",
        "Cached temperatures:",
        temperature(idle, 3, "skin", NONE),
        f"HAL Ready: {str(ready).lower()}",
    ]
    if ready:
        lines += [
            "HAL connection:",
            "\tThermalHAL 2.0 connected: yes",
            "Current temperatures from HAL:",
            temperature(skin + CHIP_ABOVE_SKIN_C, 0, "cpu-0", status),
            temperature(skin - BATTERY_BELOW_SKIN_C, 2, "battery", NONE),
            temperature(skin, 3, "skin", status),
            # These two are volts and percent.
            temperature(volts, 6, "vbat", NONE),
            temperature(100 - level, 8, "soc", NONE),
            "Current cooling devices from HAL:",
            f"\tCoolingDevice{{mValue={steps}, mType=2, mName=thermal-cpufreq-0}}",
            "Temperature static thresholds from HAL:",
            "\tTemperatureThreshold{mType=3, mName=skin, mHotThrottlingThresholds="
            f"[NaN, NaN, {spec.trip_c}, NaN, {spec.critical_c}, NaN, NaN], "
            "mColdThrottlingThresholds=[NaN, NaN, NaN, NaN, NaN, NaN, NaN]}",
        ]
    return "\n".join(lines) + "\n"


def temperature(value: float, kind: int, name: str, status: int) -> str:
    """Return one line of temperatures."""
    return f"\tTemperature{{mValue={value:.3f}, mType={kind}, mName={name}, mStatus={status}}}"


def readings(
    board: Board, model: ThermalModel, control: Mapping[str, float]
) -> dict[str, str | None]:
    """Return what the sensors show now, by path; None for one that is missing."""
    chip = sysfs.millidegrees(model.temp_c + CHIP_ABOVE_SKIN_C)
    return {
        **sysfs.clocks(board, model.frequency_khz),
        f"{sysfs.ZONE}/temp": None if control.get("sensor_missing") else chip,
        BATTERY: battery(board, model, control),
        THERMAL: thermalservice(board, model, control),
    }


def tree(board: Board, model: ThermalModel) -> dict[str, str]:
    """Return the phone's files with their first content, paths relative to its root."""
    files = {
        **sysfs.cpu_files(board),
        f"{sysfs.ZONE}/type": "cpu-0",
        **readings(board, model, {}),
    }
    return {name: text for name, text in files.items() if text is not None}
