"""Moving a unit's sensors: the thermal model applied to the files that show it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from . import phonefiles, sysfs
from .config import Board
from .control import CONTROL_FILE, read_control
from .thermal import THROTTLED, ThermalModel, cpu_ticks, read_stats


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


def replace(path: Path, text: str) -> None:
    """Replace a longer text as a whole, so that nobody who reads it now gets half of each."""
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.write_text(text, encoding="ascii")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def break_off(path: Path) -> None:
    """Make a sensor one that is there and fails to be read, as drivers' files do."""
    if not path.is_symlink():
        path.unlink(missing_ok=True)
        path.symlink_to(path.name)  # opening it leads round in a circle, for root too


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
        if self._board.phone:
            self._show(phonefiles.readings(self._board, self._model, control))
        else:
            self._show(sysfs.readings(self._board, self._model, self._throttle_count, control))

    def _show(self, values: dict[str, str | None]) -> None:
        for name, text in values.items():
            path = self._root / name
            if text is None:
                break_off(path)
                self._shown.pop(name, None)
            elif self._shown.get(name) != text:
                try:
                    if path.is_symlink():
                        path.unlink()
                    (overwrite if name.startswith("sys/") else replace)(path, text)
                    if path.name in phonefiles.UNREADABLE and self._board.phone:
                        path.chmod(0o400)
                except OSError:
                    continue  # a full disk on the board must not end the board
                self._shown[name] = text
