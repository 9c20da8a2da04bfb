"""A small thermal model: enough to make a board's sensors behave like sensors.

Nothing about real heat may be concluded from it; it exists so that telemetry, throttling flags
and thermal gates can be exercised without hardware.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .config import ThermalSpec

# Bits of the Raspberry Pi firmware's get_throttled; the same bit + 16 says "has happened".
UNDERVOLTAGE, FREQUENCY_CAPPED, THROTTLED, SOFT_LIMIT = 1, 2, 4, 8
STICKY_SHIFT = 16


@dataclass
class ThermalModel:
    """First-order heating with stepwise throttling and hysteresis."""

    spec: ThermalSpec
    frequencies_khz: tuple[int, ...]
    temp_c: float = field(init=False)
    level: int = field(init=False)
    flags: int = 0

    def __post_init__(self) -> None:
        """Start idle: in balance with the surroundings, at full clock."""
        self.temp_c = self.spec.ambient_c + self.spec.idle_rise_c
        self.level = len(self.frequencies_khz) - 1

    @property
    def frequency_khz(self) -> int:
        """Clock of all cores."""
        return self.frequencies_khz[self.level]

    def step(self, seconds: float, busy_cores: float, control: Mapping[str, float]) -> None:
        """Advance by a time span during which ``busy_cores`` were busy on average."""
        spec = self.spec
        if "temp_c" in control:
            self.temp_c = control["temp_c"]
        else:
            # A lower clock heats less, so throttling really settles.
            power = spec.core_rise_c * busy_cores * self.frequency_khz / self.frequencies_khz[-1]
            target = control.get("ambient_c", spec.ambient_c) + spec.idle_rise_c + power
            self.temp_c += (target - self.temp_c) * (1 - math.exp(-seconds / spec.tau_s))
        self._throttle()
        now = UNDERVOLTAGE if control.get("undervoltage") else 0
        if self.level < len(self.frequencies_khz) - 1:
            now |= FREQUENCY_CAPPED
        if self.temp_c >= spec.trip_c:
            now |= SOFT_LIMIT
        if self.temp_c >= spec.critical_c:
            now |= THROTTLED
        sticky = (self.flags >> STICKY_SHIFT) | now
        self.flags = sticky << STICKY_SHIFT | now

    def _throttle(self) -> None:
        if self.temp_c >= self.spec.critical_c:
            self.level = 0
        elif self.temp_c >= self.spec.trip_c:
            self.level = max(0, self.level - 1)
        elif self.temp_c < self.spec.trip_c - self.spec.hysteresis_c:
            self.level = min(len(self.frequencies_khz) - 1, self.level + 1)


def cpu_ticks(stats: Iterable[str]) -> int:
    """Return the CPU time in clock ticks that a set of /proc/PID/stat lines accounts for.

    Counts the waited-for children too: a process that ends between two samples then still counts,
    through its parent. The process with pid 1 counts with its children only, because that is the
    farm's own loop.
    """
    total = 0
    for line in stats:
        head, _, rest = line.rpartition(")")
        fields = rest.split()
        first = 13 if head.startswith("1 ") else 11
        total += sum(int(value) for value in fields[first:15])
    return total


def read_stats(proc: Path = Path("/proc")) -> list[str]:
    """Return the stat line of every process in this PID namespace."""
    lines = []
    for process in proc.iterdir():
        if process.name.isdigit():
            try:
                lines.append((process / "stat").read_text(encoding="utf-8", errors="replace"))
            except OSError:
                continue  # it ended meanwhile
    return lines
