"""Live progress of a run. Callers report what happens; a writer decides how it looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichBar
from rich.text import Text

from orchestrator.coordinator.events import NullProgress, Progress
from orchestrator.reports import format as fmt

RUNNING_SHOWN = 8
"""Most running cells listed at once; the rest are counted, so that the screen stays still."""


class PlainProgress:
    """One line per finished cell: time (UTC), count, ID, device, outcome, duration, note.

    For logs and pipes; ``stream`` is standard error, which leaves standard output to results.
    """

    def __init__(
        self, stream: IO[str], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._stream, self._now = stream, now
        self._lock = threading.Lock()
        self._total = 0
        self._done: set[str] = set()

    def start(self, total: int) -> None:
        with self._lock:
            self._total, self._done = total, set()
            self._write(f"{total} cells")

    def grow(self, count: int) -> None:
        with self._lock:
            self._total += count

    def cell_started(self, id: str, device: str) -> None:
        pass

    def cell_finished(
        self, id: str, device: str, outcome: str, seconds: float, note: str = ""
    ) -> None:
        with self._lock:
            self._done.add(id)
            count = f"{len(self._done)}/{self._total}"
            parts = [count, id, device, outcome, fmt.seconds(seconds), note]
            self._write("  ".join(part for part in parts if part))

    def cell_waits(
        self, id: str, device: str, outcome: str, seconds: float, note: str = ""
    ) -> None:
        with self._lock:
            parts = ["again", id, device, outcome, fmt.seconds(seconds), note]
            self._write("  ".join(part for part in parts if part))

    def message(self, text: str) -> None:
        with self._lock:
            self._write(text)

    def stop(self) -> None:
        with self._lock, _told_if_anybody_looks():
            self._stream.flush()

    def _write(self, text: str) -> None:
        with _told_if_anybody_looks():
            self._stream.write(f"{self._now():%H:%M:%SZ}  {fmt.printable(text)}\n")
            self._stream.flush()


class RichProgress:
    """A bar, the cells that run now, and above it a line for every cell that did not end ok."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._lock = threading.Lock()
        self._running: dict[str, tuple[str, float]] = {}
        self._done: set[str] = set()
        self._total = 0
        self._bar = RichBar(
            TextColumn("cells"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("cells", total=None)
        self._live = Live(
            console=console, get_renderable=self._view, refresh_per_second=4, transient=True
        )

    def start(self, total: int) -> None:
        self._total = total
        self._bar.update(self._task, total=total, completed=0)
        self._live.start()

    def grow(self, count: int) -> None:
        with self._lock:
            self._total += count
            self._bar.update(self._task, total=self._total)

    def cell_started(self, id: str, device: str) -> None:
        with self._lock:
            self._running[id] = (device, self._clock())

    def cell_finished(
        self, id: str, device: str, outcome: str, seconds: float, note: str = ""
    ) -> None:
        with self._lock:
            self._running.pop(id, None)
            self._done.add(id)
            self._bar.update(self._task, completed=len(self._done))
        if outcome != "ok":
            parts = [fmt.words(outcome), id, device, fmt.seconds(seconds), note]
            self.message("  ".join(part for part in parts if part))

    def cell_waits(
        self, id: str, device: str, outcome: str, seconds: float, note: str = ""
    ) -> None:
        with self._lock:
            self._running.pop(id, None)
        parts = ["again", id, device, fmt.words(outcome), fmt.seconds(seconds), note]
        self.message("  ".join(part for part in parts if part))

    def message(self, text: str) -> None:
        with _told_if_anybody_looks():
            self._console.print(Text(fmt.printable(text)), soft_wrap=True)

    def stop(self) -> None:
        with _told_if_anybody_looks():
            self._live.stop()

    def _view(self) -> Group:
        with self._lock:
            running = list(self._running.items())
        now = self._clock()
        lines = [
            Text(
                fmt.printable(f"  {id}  on {device}  {fmt.seconds(now - since)}"),
                "dim",
                no_wrap=True,
                overflow="ellipsis",
            )
            for id, (device, since) in running[:RUNNING_SHOWN]
        ]
        if len(running) > RUNNING_SHOWN:
            lines.append(Text(f"  and {len(running) - RUNNING_SHOWN} more", "dim"))
        return Group(self._bar.get_renderable(), *lines)


@contextmanager
def _told_if_anybody_looks() -> Iterator[None]:
    """A terminal that is closed, or a full disk behind a log, ends no run: all is in the store."""
    try:
        yield
    except OSError:
        return


def progress_for(console: Console, *, quiet: bool = False) -> Progress:
    """The writer that suits ``console`` (use one on standard error)."""
    if quiet:
        return NullProgress()
    if console.is_terminal and not console.is_dumb_terminal:
        return RichProgress(console)
    return PlainProgress(console.file)
