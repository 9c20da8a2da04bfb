"""Running under a named power mode, and putting the device back whatever happens.

What has to be put back is written to ``<root>/power.json`` before anything is changed, so that the
next session on the device does it after a crash of this one.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import subprocess
import threading
import time
from typing import Any, Dict, Iterator, List, Optional

from device_worker import wire
from device_worker.errors import WorkerError, one_line, storage
from device_worker.telemetry.asking import program
from device_worker.telemetry.sensors import look, read_text
from device_worker.wire import PowerMode, Source

_PENDING = "power.json"
_COMMAND_S = 30.0
_TAKES_S = 10.0
"""How long a mode may take to show after it was asked for."""
_POLL_S = 0.2
_FIX = "put it back by hand, then delete %s"

_turn = threading.RLock()
"""Held while the device is changed: the thread that ends a worker may not come in between."""

Command = List[str]


def current(source: Source) -> Optional[str]:
    """The mode the device says it is in, the parser's first value; None where it cannot be read."""
    value = next(iter(look(source).values()), None)
    return None if value is None else str(value)


class Active:
    """A mode while it is in force. ``name``: what the device calls it."""

    def __init__(self, mode: PowerMode, name: str) -> None:
        self._mode, self.name = mode, name

    def check(self) -> None:
        """Raises WorkerError E-POWER-LOST (infra_error) when the device is no longer in it."""
        found = current(self._mode.read)
        if found != self._mode.expect:
            raise WorkerError(
                "infra_error",
                "E-POWER-LOST",
                "power mode %r ended during the run: the device says %s"
                % (self._mode.name, repr(found) if found else "nothing"),
                "find out what else changes the device's power mode, or plug it in",
            )


@contextlib.contextmanager
def in_mode(mode: PowerMode, root: str, attempt: str) -> Iterator[Active]:
    """The device in ``mode``, and back in its own mode afterwards.

    Raises WorkerError E-POWER-MODE (not_available) where it is not in the mode and cannot be
    brought there, E-POWER-RESTORE (infra_error) where it cannot be brought back.
    """
    before = current(mode.read)
    if before == mode.expect:
        yield Active(mode, before)
        return
    if before is None:
        raise _unavailable(mode, "the device does not say which mode it is in")
    if not mode.apply:
        raise _unavailable(
            mode,
            "the device is in %r" % before,
            "bring the device into it, or allow it in the inventory with power: [%s]" % mode.name,
        )
    try:
        with _turn:
            _keep(root, _pending(mode, before, attempt))
            try:
                _perform(mode.apply)
            except _CommandError as error:
                raise _unavailable(mode, str(error)) from error
        if not _shows(mode.read, mode.expect):
            found = current(mode.read)
            raise _unavailable(mode, "it did not take: the device says %r" % found)
        yield Active(mode, mode.expect)
    finally:
        recover(root, attempt)


def end(root: str) -> None:
    """As `recover`, for a process about to end: from now on none of its jobs can set a mode."""
    _turn.acquire()  # and never released
    recover(root)


def recover(root: str, attempt: Optional[str] = None) -> None:
    """Put back the mode that an attempt (None: whichever) left the device in.

    With nothing to do, does nothing. Raises WorkerError E-POWER-RESTORE when the device does not
    come back.
    """
    with _turn:
        _recover(os.path.join(root, _PENDING), attempt)


def _recover(path: str, attempt: Optional[str]) -> None:
    text = read_text(path)
    if text is None and not os.path.lexists(path):
        return
    try:
        pending: Dict[str, Any] = json.loads(text or "")
        before, commands = str(pending["before"]), list(pending["commands"])
        source = wire.load(Source, pending["read"])
        owner = pending["attempt"]
    except (ValueError, KeyError, TypeError) as error:
        raise _stuck("%s cannot be read: %s" % (path, error), path) from error
    if attempt is not None and owner != attempt:
        return  # another session has the device by now, and put this one's mode back
    trouble: Optional[str] = None
    for command in commands:  # one that fails keeps none of the others back
        try:
            _perform([command])
        except _CommandError as error:
            trouble = trouble or str(error)
    # What the device says decides: a person may have put it back meanwhile.
    if not _shows(source, before):
        found = current(source)
        raise _stuck(
            "the device stays in power mode %r, was in %r%s"
            % (found, before, ": " + trouble if trouble else ""),
            path,
        )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _pending(mode: PowerMode, before: str, attempt: str) -> Dict[str, Any]:
    """What puts the device back.

    The mode's own commands, in which ``{before}`` stands for the mode it was in, then every file
    that setting the mode overwrites, as it is now.
    """
    commands = [[part.replace("{before}", before) for part in c] for c in mode.restore]
    for command in mode.apply:
        if command[:1] == ["write"] and len(command) == 3:
            for path in sorted(glob.glob(command[1])):
                text = read_text(path)
                if text is not None:
                    commands.append(["write", path, text.strip()])
    return {
        "attempt": attempt,
        "mode": mode.name,
        "before": before,
        "read": wire.dump(mode.read),
        "commands": commands,
    }


def _keep(root: str, pending: Dict[str, Any]) -> None:
    """On the disk, not only in its cache, before the device is touched."""
    path = os.path.join(root, _PENDING)
    with storage("writing %s" % path):
        with open(path + ".part", "w", encoding="utf-8") as file:
            json.dump(pending, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".part", path)


class _CommandError(Exception):
    """A command of a power mode failed; one line."""


def _perform(commands: List[Command]) -> None:
    for command in commands:
        if command[:1] == ["write"] and len(command) == 3:
            _write(command[1], command[2])
        else:
            _execute(command)


def _write(pattern: str, text: str) -> None:
    paths = sorted(glob.glob(pattern))
    if not paths:
        raise _CommandError("there is no %s" % pattern)
    for path in paths:
        try:
            # Never made where it is not: a mode is an attribute that the kernel offers.
            handle = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
            try:
                os.write(handle, text.encode() + b"\n")
            finally:
                os.close(handle)
        except OSError as error:
            raise _CommandError("%s: %s" % (path, error.strerror)) from error


def _execute(command: Command) -> None:
    try:
        done = subprocess.run(
            [program(command[0]) or command[0], *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _CommandError(one_line(str(error))) from error
    if done.returncode:
        said = one_line(done.stderr.decode(errors="replace"))
        raise _CommandError("%s ended with %d: %s" % (command[0], done.returncode, said))


def _shows(source: Source, expect: str) -> bool:
    """Whether the device says ``expect``, now or soon."""
    deadline = time.monotonic() + _TAKES_S
    while current(source) != expect:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _unavailable(mode: PowerMode, why: str, fix: str = "") -> WorkerError:
    what = "power mode %r is not covered: %s" % (mode.name, why)
    return WorkerError("not_available", "E-POWER-MODE", what, fix)


def _stuck(what: str, path: str) -> WorkerError:
    return WorkerError("infra_error", "E-POWER-RESTORE", what, _FIX % path)
