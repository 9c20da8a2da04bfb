"""The /proc/cpuinfo and /sys that a board shows, as plain files.

They are not decoration: without /sys/devices/system/cpu, LiteRT cannot count its cores and
silently runs without XNNPACK, which is another arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .config import Board
from .thermal import ThermalModel

CPU = "sys/devices/system/cpu"
ZONE = "sys/class/thermal/thermal_zone0"
GET_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
THROTTLE_COUNT = f"{CPU}/cpu0/thermal_throttle/core_throttle_count"
# Architectures of ARM and what /proc/cpuinfo calls them.
ARM = {"arm64": "8", "armhf": "7"}


def cpuinfo(board: Board) -> str:
    """Return the text of /proc/cpuinfo."""
    facts = board.cpuinfo
    blocks = []
    for number in range(board.ncpu):
        if board.arch in ARM:
            names = {"armhf": {"model name": "ARMv7 Processor rev 5 (v7l)"}}
            rows = {
                **names.get(board.arch, {}),
                "BogoMIPS": "108.00",
                "Features": facts["features"],
                "CPU implementer": f"{facts['implementer']:#04x}",
                "CPU architecture": ARM[board.arch],
                "CPU variant": f"{facts['variant']:#x}",
                "CPU part": f"{facts['part']:#05x}",
                "CPU revision": str(facts["revision"]),
            }
        else:
            rows = {
                "vendor_id": facts["vendor"],
                "cpu family": str(facts["family"]),
                "model": str(facts["model"]),
                "model name": facts["name"],
                "stepping": str(facts["stepping"]),
                "cpu MHz": f"{board.frequencies_khz[-1] / 1000:.3f}",
                "physical id": "0",
                "siblings": str(board.ncpu),
                "core id": str(number),
                "cpu cores": str(board.ncpu),
                "apicid": str(number),
                "initial apicid": str(number),
                "flags": facts["features"],
            }
        lines = [f"processor\t: {number}"] + [f"{key}\t: {value}" for key, value in rows.items()]
        blocks.append("\n".join(lines) + "\n")
    text = "\n".join(blocks)
    if board.arch in ARM:
        text += f"\nHardware\t: {board.name}\nModel\t\t: {board.model}\n"
    return text


def cpu_files(board: Board) -> dict[str, str]:
    """Return /sys/devices/system/cpu with its first content."""
    last = board.ncpu - 1
    every = f"0-{last}" if last else "0"
    low, high = board.frequencies_khz[0], board.frequencies_khz[-1]
    files = {f"{CPU}/{name}": every for name in ("possible", "present", "online")}
    files[f"{CPU}/kernel_max"] = "255"
    for number in range(board.ncpu):
        cpu = f"{CPU}/cpu{number}"
        files |= {
            f"{cpu}/online": "1",
            f"{cpu}/topology/core_id": str(number),
            f"{cpu}/topology/physical_package_id": "0",
            f"{cpu}/topology/cluster_id": "0",
            f"{cpu}/topology/core_siblings_list": every,
            f"{cpu}/topology/package_cpus_list": every,
            f"{cpu}/topology/core_cpus_list": str(number),
            f"{cpu}/topology/thread_siblings_list": str(number),
            f"{cpu}/cpufreq/scaling_min_freq": str(low),
            f"{cpu}/cpufreq/scaling_max_freq": str(high),
            f"{cpu}/cpufreq/cpuinfo_min_freq": str(low),
            f"{cpu}/cpufreq/cpuinfo_max_freq": str(high),
            f"{cpu}/cpufreq/scaling_governor": "performance",
            f"{cpu}/cpufreq/scaling_available_governors": "performance",
            f"{cpu}/cpufreq/scaling_available_frequencies": " ".join(
                str(frequency) for frequency in board.frequencies_khz
            ),
        }
    return files | clocks(board, high)


def clocks(board: Board, frequency_khz: int) -> dict[str, str]:
    """Return what the cores' clocks show."""
    return {
        f"{CPU}/cpu{number}/cpufreq/scaling_cur_freq": str(frequency_khz)
        for number in range(board.ncpu)
    }


def tree(board: Board) -> dict[str, str]:
    """Return a board's files of /sys with their first content, paths relative to its root."""
    arm = board.arch in ARM
    files = cpu_files(board) | {
        f"{ZONE}/type": "cpu-thermal" if arm else "x86_pkg_temp",
        f"{ZONE}/mode": "enabled",
        f"{ZONE}/policy": "step_wise",
        f"{ZONE}/temp": millidegrees(board.thermal.ambient_c + board.thermal.idle_rise_c),
        f"{ZONE}/trip_point_0_temp": millidegrees(board.thermal.trip_c),
        f"{ZONE}/trip_point_0_type": "passive",
        f"{ZONE}/trip_point_1_temp": millidegrees(board.thermal.critical_c),
        f"{ZONE}/trip_point_1_type": "hot",
    }
    # Each kind of board reports throttling the way its kind does.
    files[GET_THROTTLED if arm else THROTTLE_COUNT] = "0"
    if arm:
        files["sys/firmware/devicetree/base/model"] = board.model
    return files


def readings(
    board: Board, model: ThermalModel, throttle_count: int, control: Mapping[str, float]
) -> dict[str, str | None]:
    """Return what a board's sensors show now, by path; None for one that is missing."""
    arm = board.arch in ARM
    return {
        **clocks(board, model.frequency_khz),
        (GET_THROTTLED if arm else THROTTLE_COUNT): f"{model.flags:x}"
        if arm
        else str(throttle_count),
        f"{ZONE}/temp": None if control.get("sensor_missing") else millidegrees(model.temp_c),
    }


def millidegrees(celsius: float) -> str:
    """Return a temperature the way thermal zones print it."""
    return str(round(celsius * 1000))


def write_tree(root: Path, files: dict[str, str]) -> None:
    """Write files below a root, with the newline that sysfs ends values with."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip("\n") + "\n", encoding="ascii")
