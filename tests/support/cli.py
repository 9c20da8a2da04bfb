"""The real `assay` as a process of its own, with a store that belongs to the test.

Most of a short command's time is Python's imports. `assay` therefore forks its process from one
that has imported them; `start`, whose process is watched and signalled, executes the program.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[2]
ASSAY = Path(sys.executable).with_name("assay")
ERROR_LINE = re.compile(r"^assay: .+ \[(E-[A-Z0-9-]+)\]$")

_OURS = ("ASSAY_STORE", "ASSAY_EXECUTOR", "NO_COLOR", "FORCE_COLOR")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def refused(self, code: int, error_id: str, *parts: str) -> str:
        """Check that it ended with exactly one error line, and return that line."""
        lines = self.err.splitlines()
        assert len(lines) == 1, f"not one line on stderr: {self.err}"
        found = ERROR_LINE.match(lines[0])
        assert found is not None, lines[0]
        assert (found[1], self.code) == (error_id, code), self
        for part in parts:
            assert part in lines[0], lines[0]
        assert self.out == ""
        return lines[0]


class Running:
    """An `assay` that is still at work, leader of its own process group, as under a terminal."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """What Ctrl-C does: the signal goes to the whole foreground group."""
        os.killpg(self.process.pid, number)

    def wait(self, timeout: float = 60.0) -> Done:
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            out, err = self.process.communicate()
            raise AssertionError(f"still running after {timeout} s: {err}") from None
        assert "Traceback" not in err, err
        return Done(self.process.returncode, out, err)


def _environment(store: Path | None, env: dict[str, str] | None) -> dict[str, str]:
    # A test that drives Ray in this process has its settings and its token in the environment.
    plain = {k: v for k, v in os.environ.items() if k not in _OURS and not k.startswith("RAY_")}
    ours = {} if store is None else {"ASSAY_STORE": str(store)}
    return plain | {"ASSAY_EXECUTOR": "inprocess"} | ours | (env or {})


def start(
    *arguments: str | Path,
    store: Path | None = None,
    env: dict[str, str] | None = None,
    cwd: Path = REPO,
    before: Sequence[str] = (),
) -> Running:
    """Start ``assay ARGUMENTS``; ``before``: a command that takes it as its last arguments."""
    return Running(
        subprocess.Popen(
            [*before, str(ASSAY), *map(str, arguments)],
            cwd=cwd,
            env=_environment(store, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    )


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "pytest",
        "tests.support.cli",
        "orchestrator.cli.main",
        "orchestrator.cli.work",
        "orchestrator.analysis.rows_load",
        "orchestrator.fanout.inprocess",
        "orchestrator.reports.html",
        "orchestrator.run",
    ]
)


def _command(
    arguments: list[str], environment: dict[str, str], cwd: Path, out: Path, err: Path
) -> None:
    """In the forked process: what an executed `assay` would find, then its entry point."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate((Path(os.devnull), out, err)):
        made = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(made, number)
        os.close(made)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, m) for n, m in ((0, "r"), (1, "w"), (2, "w")))
    sys.argv = [str(ASSAY), *arguments]
    from orchestrator.cli.main import main

    main()


def assay(
    *arguments: str | Path,
    store: Path | None = None,
    env: dict[str, str] | None = None,
    cwd: Path = REPO,
    before: Sequence[str] = (),
    timeout: float = 120.0,
) -> Done:
    """Run ``assay ARGUMENTS`` to its end, on threads unless ``env`` says otherwise."""
    environment = _environment(store, env)
    if before or environment["ASSAY_EXECUTOR"] == "ray":
        # A forked process runs no exit handlers, and Ray has some.
        return start(*arguments, store=store, env=env, cwd=cwd, before=before).wait(timeout)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _FORKS.Process(
            target=_command, args=([*map(str, arguments)], environment, cwd, out, err)
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            os.killpg(process.pid or 0, signal.SIGKILL)
            raise AssertionError(f"still running after {timeout} s: {err.read_text()}")
        done = Done(process.exitcode, out.read_text(), err.read_text())
    assert "Traceback" not in done.err, done.err
    return done


def until(true: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, f"waited {timeout} s in vain: {what}"
        time.sleep(0.02)


def processes_with(word: str) -> list[int]:
    """Those of which an argument holds ``word``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found
