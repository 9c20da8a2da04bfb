"""What `set` and `kick` ask of a running unit, and what the unit says it has done of it.

Both are small files in a folder that the host and the unit share.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from .config import Board

# As the unit sees the shared folder.
SHARED = Path("/.farm")
CONTROL_FILE = SHARED / "control.json"

# What `set` may ask for, with the accepted range.
COMMON = {"ambient_c": (-40.0, 150.0), "temp_c": (-40.0, 150.0), "sensor_missing": (0.0, 1.0)}
BOARD = {"undervoltage": (0.0, 1.0)}
PHONE = {"battery": (0.0, 100.0), "plugged": (0.0, 1.0), "cable": (0.0, 1.0), "adbd": (0.0, 1.0)}
# How often the server was to be killed; only `kick` counts it up.
KICKS = "kicks"
KNOWN = {*COMMON, *BOARD, *PHONE, KICKS}
# Those that `set` waits for, since what comes next depends on them.
AWAITED = ("cable", "adbd", KICKS)


def settings(board: Board) -> dict[str, tuple[float, float]]:
    """Return what may be set on a unit of this kind."""
    return COMMON | (PHONE if board.phone else BOARD)


def read_control(path: Path) -> dict[str, float]:
    """Return what is asked for; anything unreadable counts as nothing asked."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {key: float(value) for key, value in raw.items() if key in KNOWN}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


class Watch:
    """Reads the control file again only when it was replaced."""

    def __init__(self, path: Path = CONTROL_FILE) -> None:
        """Start with nothing asked."""
        self._path, self._seen = path, (0, 0)
        self._control: dict[str, float] = {}

    def __call__(self) -> Mapping[str, float]:
        """Return what is asked for now."""
        try:
            stat = self._path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns)
        except OSError:
            seen = (0, 0)
        if seen != self._seen:
            self._control, self._seen = read_control(self._path), seen
        return self._control


def report(path: Path, done: Mapping[str, float]) -> None:
    """Say what has been done; whoever waits in vain says so itself."""
    draft = path.with_suffix(".new")
    try:
        draft.write_text(json.dumps(dict(done)), encoding="ascii")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)


def reported(shared: Path) -> dict[str, float]:
    """Return what a unit says it has done, seen from the host."""
    return {
        key: value
        for name in ("init.json", "relay.json")
        for key, value in read_control(shared / name).items()
    }
