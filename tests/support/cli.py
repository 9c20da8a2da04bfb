"""The real `assay` as a process of its own, with a store that belongs to the test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
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


def start(
    *arguments: str | Path,
    store: Path | None = None,
    env: dict[str, str] | None = None,
    cwd: Path = REPO,
    before: Sequence[str] = (),
) -> Running:
    """Start ``assay ARGUMENTS``; ``before``: a command that takes it as its last arguments."""
    # A test that drives Ray in this process has its settings and its token in the environment.
    plain = {k: v for k, v in os.environ.items() if k not in _OURS and not k.startswith("RAY_")}
    ours = {} if store is None else {"ASSAY_STORE": str(store)}
    return Running(
        subprocess.Popen(
            [*before, str(ASSAY), *map(str, arguments)],
            cwd=cwd,
            env=plain | {"ASSAY_EXECUTOR": "inprocess"} | ours | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    )


def assay(
    *arguments: str | Path,
    store: Path | None = None,
    env: dict[str, str] | None = None,
    cwd: Path = REPO,
    before: Sequence[str] = (),
    timeout: float = 120.0,
) -> Done:
    """Run ``assay ARGUMENTS`` to its end, on threads unless ``env`` says otherwise."""
    return start(*arguments, store=store, env=env, cwd=cwd, before=before).wait(timeout)


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
