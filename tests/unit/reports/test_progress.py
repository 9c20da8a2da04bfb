from __future__ import annotations

import io
import threading
from datetime import UTC, datetime

from rich.console import Console

from orchestrator.coordinator.events import NullProgress, Progress
from orchestrator.reports import progress


def _noon() -> datetime:
    return datetime(2026, 1, 2, 12, 0, 1, tzinfo=UTC)


def test_plain_progress_is_one_line_per_finished_cell() -> None:
    stream = io.StringIO()
    plain = progress.PlainProgress(stream, _noon)
    plain.start(2)
    plain.cell_started("cell/a", "rpi4#1")
    plain.cell_finished("cell/a", "rpi4#1", "ok", 1.25)
    plain.message("rpi4#2 is\nback")
    plain.cell_finished("cell/b", "rpi4#2", "infra_error", 12.0, "link lost [E-LINK]")
    plain.stop()
    assert stream.getvalue().splitlines() == [
        "12:00:01Z  2 cells",
        "12:00:01Z  1/2  cell/a  rpi4#1  ok  1.25 s",
        "12:00:01Z  rpi4#2 is\\nback",
        "12:00:01Z  2/2  cell/b  rpi4#2  infra_error  12 s  link lost [E-LINK]",
    ]


def _work(target: Progress, threads: int, cells: int) -> None:
    def one(worker: int) -> None:
        for number in range(cells):
            target.cell_started(f"c{worker}-{number}", f"d{worker}")
            target.cell_finished(f"c{worker}-{number}", f"d{worker}", "timeout", 0.1)

    running = [threading.Thread(target=one, args=(i,)) for i in range(threads)]
    target.start(threads * cells)
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    target.stop()


def test_threads_lose_and_mix_no_lines() -> None:
    stream = io.StringIO()
    _work(progress.PlainProgress(stream, _noon), 8, 50)
    lines = stream.getvalue().splitlines()[1:]
    assert [line.split("  ")[1] for line in lines] == [f"{i}/400" for i in range(1, 401)]
    assert {line.split("  ")[2] for line in lines} == {
        f"c{w}-{n}" for w in range(8) for n in range(50)
    }


def test_rich_progress_counts_every_cell_and_prints_what_went_wrong() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, no_color=True, width=200)
    _work(progress.RichProgress(console), 4, 5)
    text = stream.getvalue()
    assert all(f"timeout  c{w}-{n}  d{w}  0.10 s" in text for w in range(4) for n in range(5))


def test_rich_progress_lists_what_runs_and_counts_the_rest() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, no_color=True, width=200)
    shown = progress.RichProgress(console, clock=lambda: 0.0)
    shown.start(30)
    for number in range(progress.RUNNING_SHOWN + 3):
        shown.cell_started(f"cell[red]{number}", "rpi4#1")
    shown.cell_finished("cell[red]0", "rpi4#1", "ok", 1.0)
    with console.capture() as capture:
        console.print(shown._view())
    shown.stop()
    text = capture.get()
    assert "1/30" in text
    assert "cell[red]1  on rpi4#1  0.00 s" in text
    assert "cell[red]0 " not in text
    assert "and 2 more" in text


def test_the_writer_fits_the_console() -> None:
    pipe = Console(file=io.StringIO())
    tty = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "xterm"})
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(progress.progress_for(pipe), progress.PlainProgress)
    assert isinstance(progress.progress_for(dumb), progress.PlainProgress)
    assert isinstance(progress.progress_for(tty), progress.RichProgress)
    assert isinstance(progress.progress_for(tty, quiet=True), NullProgress)
