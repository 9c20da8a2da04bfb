"""Moving a board's sensors: the thermal model applied to the files of its /sys."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from . import sysfs
from .config import Board
from .thermal import CONTROLS, THROTTLED, ThermalModel, cpu_ticks, read_stats

CONTROL_FILE = Path("/.farm/control.json")


def read_control(path: Path) -> dict[str, float]:
    """Return what `set` asks for; anything unreadable counts as nothing asked."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {key: float(value) for key, value in raw.items() if key in CONTROLS}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def overwrite(path: Path, text: str) -> None:
    """Replace a sensor's value in place, so that readers who keep it open see it too."""
    data = text.encode("ascii") + b"\n"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # Never empty in between, unlike truncating first: a sensor always has a value.
        os.pwrite(handle, data, 0)
        os.ftruncate(handle, len(data))
    finally:
        os.close(handle)


class Sensors:
    """Reads the load of this PID namespace and writes the sensor files below ``root``."""

    def __init__(self, board: Board, root: Path = Path("/")) -> None:
        """Start with an idle board."""
        self._board, self._root = board, root
        self._model = ThermalModel(board.thermal, board.frequencies_khz)
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._ticks, self._time = cpu_ticks(read_stats()), time.monotonic()
        self._throttle_count = 0
        self._shown: dict[str, str] = {}

    def tick(self) -> None:
        """Measure the load since the last call and show what follows from it."""
        ticks, now = cpu_ticks(read_stats()), time.monotonic()
        seconds = max(now - self._time, 1e-3)
        busy = (ticks - self._ticks) / self._ticks_per_s / seconds
        self._ticks, self._time = ticks, now
        control = read_control(CONTROL_FILE)
        was_throttled = self._model.flags & THROTTLED
        # A process that ended unwaited-for takes its time with it: never less than nothing.
        self._model.step(seconds, min(max(busy, 0.0), self._board.ncpu), control)
        if self._model.flags & THROTTLED and not was_throttled:
            self._throttle_count += 1
        self._show(missing=bool(control.get("sensor_missing")))

    def _show(self, missing: bool) -> None:
        clock = str(self._model.frequency_khz)
        values = {
            f"{sysfs.CPU}/cpu{number}/cpufreq/scaling_cur_freq": clock
            for number in range(self._board.ncpu)
        }
        if self._board.arch == "arm64":
            values[sysfs.GET_THROTTLED] = f"{self._model.flags:x}"
        else:
            values[sysfs.THROTTLE_COUNT] = str(self._throttle_count)
        temperature = f"{sysfs.ZONE}/temp"
        if missing:
            (self._root / temperature).unlink(missing_ok=True)
            self._shown.pop(temperature, None)
        else:
            values[temperature] = sysfs.millidegrees(self._model.temp_c)
        for name, text in values.items():
            if self._shown.get(name) != text:
                try:
                    overwrite(self._root / name, text)
                except OSError:
                    continue  # a full disk on the board must not end the board
                self._shown[name] = text
