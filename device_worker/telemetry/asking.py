"""Asking what may never answer: files of hung drivers, commands, and commands that run on.

Everything here has a deadline in seconds and raises LateError when it passes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from typing import Callable, Dict, List, Optional, Tuple

from device_worker import shortage
from device_worker.errors import WorkerError

Raw = Dict[str, Optional[str]]

_MOST = 1 << 18
"""Bytes of a command's output that are looked at, and of a stream's line."""
_PATH = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/system/bin", "/vendor/bin", "/opt/vc/bin")
"""Looked through after $PATH, which is short where nobody logs in."""
_GRACE_S = 1.0


class LateError(Exception):
    """No answer in time: there will be none later."""


def program(name: str) -> Optional[str]:
    """The program's path, None when the device does not have it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_PATH])
    return shutil.which(name, path=path)


class Asker:
    """One thread that reads files for others. Hung in a driver, it is left behind for a new one."""

    def __init__(self) -> None:
        self._line: Optional[_Line] = None

    def ask(self, call: Callable[[], Raw], timeout_s: float) -> Raw:
        """What ``call`` returns; it must not raise."""
        line = self._line = self._line or _Line()
        line.calls.put(call)
        try:
            return line.answers.get(timeout=timeout_s)
        except queue.Empty:
            line.calls.put(None)  # should it ever come back, its time is over
            self._line = None
            raise LateError from None

    def close(self) -> None:
        if self._line is not None:
            self._line.calls.put(None)
            self._line.thread.join(_GRACE_S)
            self._line = None


class _Line:
    def __init__(self) -> None:
        self.calls: "queue.SimpleQueue[Optional[Callable[[], Raw]]]" = queue.SimpleQueue()
        self.answers: "queue.SimpleQueue[Raw]" = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, daemon=True, name="assay-sensors")
        shortage.start(self.thread)

    def _work(self) -> None:
        while True:
            call = self.calls.get()
            if call is None:
                return
            self.answers.put(call())


class Command:
    """A command that prints what it knows and ends. Not there or failed: unknown."""

    def __init__(self, argv: List[str], timeout_s: float) -> None:
        self._argv, self._timeout = argv, timeout_s

    def raw(self) -> Raw:
        process = _start(self._argv)
        if process is None:
            return {"": None}
        try:
            reader = _Reader(process)
        except WorkerError:
            kill(process)
            raise
        if not reader.done.wait(self._timeout):
            kill(process)
            raise LateError
        try:
            status = process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:  # it closed its stdout and stays
            kill(process)
            raise LateError from None
        return {"": reader.text() if status == 0 else None}


class Stream:
    """A command that runs on; its newest whole line counts. Started when first asked."""

    def __init__(self, argv: List[str], timeout_s: float) -> None:
        self._argv, self._timeout = argv, timeout_s
        self._process: "Optional[subprocess.Popen[bytes]]" = None
        self._changed = threading.Condition()
        self._newest: Optional[Tuple[float, str]] = None
        self._ended = False

    def raw(self) -> Raw:
        """LateError when the last line is older than the deadline, or the command has ended."""
        if self._process is None:
            self._process = _start(self._argv)
            if self._process is None:
                raise LateError
            shortage.start(threading.Thread(target=self._read, daemon=True, name="assay-stream"))
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._ended, self._timeout)
            newest, ended = self._newest, self._ended
        if newest is None or ended or time.monotonic() - newest[0] > self._timeout:
            self.close()
            raise LateError
        return {"": newest[1]}

    def close(self) -> None:
        if self._process is not None:
            kill(self._process)

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError), self._process.stdout as lines:
            for line in iter(functools.partial(lines.readline, _MOST), b""):
                text = line.decode("utf-8", "replace").strip()
                if text:
                    with self._changed:
                        self._newest = (time.monotonic(), text)
                        self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class _Reader:
    """Reads a process's stdout to its end, or so much of it that it can no longer be an answer."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process, self._data = process, b""
        self.done = threading.Event()
        shortage.start(threading.Thread(target=self._read, daemon=True, name="assay-command"))

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError, OSError):
            self._data = self._process.stdout.read(_MOST)
            self._process.stdout.close()
        self.done.set()

    def text(self) -> Optional[str]:
        return self._data.decode("utf-8", "replace") if len(self._data) < _MOST else None


def _start(argv: List[str]) -> "Optional[subprocess.Popen[bytes]]":
    """In a process group of its own, so that it can be killed with all it started."""
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError:
        return None


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End a command and everything in its group; a process stuck in the kernel is left behind."""
    # While nobody has waited for it, its id cannot have passed to another group.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
