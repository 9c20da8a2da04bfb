"""The session loop of wire.py: requests in on stdin, answers and heartbeats out on stdout.

Three threads: the main one works off requests, a reader answers pings at any time and is the
watchdog, a heartbeat thread keeps the lease alive and notices when it is lost.
"""

from __future__ import annotations

import base64
import contextlib
import os
import platform
import queue
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NoReturn, Optional

from device_worker import environment, plain, power, shortage, wire
from device_worker.cache import Cache, read_plain, sha256_file
from device_worker.channel import LineTooLongError, SilenceError, Writer, lines, take_stdio
from device_worker.errors import (
    EXIT_COORDINATOR_GONE,
    EXIT_REFUSED,
    EXIT_STALE,
    WorkerError,
    storage,
    told,
)
from device_worker.fence import NO_STORE, Claim
from device_worker.lease import Lease
from device_worker.telemetry.sensors import Sensors

Message = Dict[str, Any]
_FAREWELL = 5.0
"""Seconds the main thread gets to finish after ``bye`` once stdin is closed."""


_SMALL = 256 << 10
"""Bytes sent in one answer: a third of the longest line, and seconds on the slowest link."""


@dataclass(frozen=True)
class Settings:
    """Times in seconds, ``cache_limit`` in bytes."""

    root: str
    owner: str
    token: int
    watchdog: float = 60.0
    heartbeat: float = 2.0
    observe: float = 10.0
    cache_limit: int = 4 << 30
    claim: Claim = NO_STORE


def bundle_sha256() -> str:
    """Hex sha256 of the bundle this code was loaded from, hashed here; "" when not a bundle.

    Raises WorkerError E-WORKER-HASH when ASSAY_WORKER_SHA256 names another one.
    """
    loader = getattr(sys.modules["device_worker"], "__loader__", None)
    archive = getattr(loader, "archive", None)
    expected = os.environ.get("ASSAY_WORKER_SHA256", "")
    if archive is None:
        return expected
    with storage("hashing the worker bundle"):
        found = sha256_file(archive)
    if expected and found != expected:
        raise WorkerError(
            "infra_error",
            "E-WORKER-HASH",
            "worker bundle has sha256 %s, expected %s" % (found[:12], expected[:12]),
            "push the bundle again",
        )
    return found


def serve(settings: Settings) -> int:
    """Serve one coordinator to its ``bye``; returns the exit status (see ``errors``)."""
    # Ctrl-C reaches the whole foreground group; winding down is the coordinator's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    read, write = take_stdio()
    writer = Writer(write)
    try:
        writer.send(
            {
                "type": "hello",
                "protocol": wire.PROTOCOL,
                "pid": os.getpid(),
                "python": platform.python_version(),
                "clock_unix": time.time(),
                "worker_sha256": bundle_sha256(),
            }
        )
        with storage("making the worker's folder"):
            os.makedirs(settings.root, exist_ok=True)
        session = Session(settings, writer)
        shortage.start(threading.Thread(target=session.read, args=(read,), daemon=True))
        session.start()
        return session.work()
    except WorkerError as error:
        with contextlib.suppress(ConnectionError):  # the exit status says it as well
            writer.send(error.message())
        return EXIT_STALE if error.kind == "stale" else EXIT_REFUSED
    except ConnectionError:
        return EXIT_COORDINATOR_GONE
    except Exception as error:  # noqa: BLE001  no traceback, but what ran out at the start
        with contextlib.suppress(ConnectionError):
            writer.send(shortage.unexpected(error).message())
        return EXIT_REFUSED


class Session:
    def __init__(self, settings: Settings, writer: Writer) -> None:
        self._settings, self._writer = settings, writer
        self._root = os.path.realpath(settings.root)
        self._lease = Lease(
            self._root, settings.owner, settings.token, settings.observe, settings.claim
        )
        self._cache = Cache(self._root, settings.cache_limit)
        self._requests: queue.Queue[Message] = queue.Queue()
        self._leaving = threading.Event()

    def start(self) -> None:
        """Take the lease and start its heartbeat. A fresh lease starts with clean folders."""
        if self._lease.acquire():
            # Errors are ignored because a fenced-off session may still be writing there.
            for folder in ("incoming", "out"):
                shutil.rmtree(os.path.join(self._root, folder), ignore_errors=True)
        with storage("making the worker's folders"):
            for folder in ("incoming", "out", "cache"):
                os.makedirs(os.path.join(self._root, folder), exist_ok=True)
        shortage.start(threading.Thread(target=self._beat, daemon=True))
        power.recover(self._root)

    def read(self, fd: int) -> None:
        """Reader thread: queue requests, answer pings, end the process with its coordinator."""
        try:
            for line in lines(fd, self._settings.watchdog):
                request = plain.decode(line)
                if request.get("op") == "ping":
                    pong = {"type": "pong", "id": request.get("id"), "nonce": request.get("nonce")}
                    self._writer.send(pong)
                    continue
                if request.get("op") == "bye":
                    self._leaving.set()
                self._requests.put(request)
        except SilenceError:
            self._quit("nothing heard for %g s" % self._settings.watchdog)
        except (LineTooLongError, wire.WireError) as error:
            what = "request is no message: %s" % (str(error) or "line too long")
            self._abandon(WorkerError("infra_error", "E-WIRE", what), EXIT_REFUSED)
        except OSError as error:
            self._quit(str(error))
        if self._leaving.is_set():
            time.sleep(_FAREWELL)
        self._quit("stdin was closed")

    def work(self) -> int:
        """Main thread: one request after the other, to ``bye``."""
        while True:
            request = self._requests.get()
            try:
                self._writer.send(self._answer(request))
            except WorkerError as error:
                self._writer.send(error.message(request.get("id")))
                if error.kind == "stale":
                    return EXIT_STALE
            if request.get("op") == "bye":
                return 0

    def _beat(self) -> None:
        while True:
            time.sleep(self._settings.heartbeat)
            if self._leaving.is_set():
                return
            try:
                self._writer.send({"type": "heartbeat", "counter": self._lease.beat()})
                hangs = shortage.stuck()
                if hangs is not None:
                    self._abandon(hangs, EXIT_REFUSED)
            except WorkerError as error:
                status = EXIT_STALE if error.kind == "stale" else EXIT_REFUSED
                self._abandon(error, status)
            except OSError as error:
                self._quit(str(error))
            except (MemoryError, RuntimeError) as error:
                self._abandon(shortage.unexpected(error), EXIT_REFUSED)

    def _answer(self, request: Message) -> Message:
        try:
            reply = self._perform(str(request.get("op")), request)
        except wire.WireError as error:
            raise WorkerError("infra_error", "E-WIRE", str(error)) from error
        except (WorkerError, ConnectionError):
            raise
        except Exception as error:  # a bug must reach the coordinator as a message
            raise shortage.unexpected(error) from error
        return {**reply, "id": request.get("id")}

    def _perform(self, op: str, request: Message) -> Message:
        if op == "noop":
            return {"type": "done"}
        if op == "facts":
            return {"type": "facts", "environment": environment.describe()}
        if op == "sensors":
            with Sensors(_sources(request)) as sensors:
                reading = sensors.read(0.0)
                return {"type": "sensors", "reading": reading.as_json(), "doubts": reading.doubts}
        if op == "probe":
            return {"type": "probed", "delegate": _probe(request)}
        if op == "have":
            return {"type": "have", "present": self._cache.have(_texts(request, "sha256"))}
        if op == "adopt":
            self._cache.adopt(_text(request, "sha256"), _text(request, "path"))
            return {"type": "adopted"}
        if op == "run":
            return self._run(request)
        if op == "batch":
            return self._batch(request)
        if op == "fetch":
            return {"type": "content", "files": self._small(_text(request, "attempt"))}
        if op == "forget":
            self._forget(_text(request, "attempt"))
            return {"type": "forgotten"}
        if op == "bye":
            self._lease.release()
            return {"type": "bye"}
        raise wire.WireError("unknown op %r" % op[:40])

    def _run(self, request: Message) -> Message:
        job = wire.load(wire.Job, request.get("job"))
        return self._leased(request, job, measuring().run_job)

    def _batch(self, request: Message) -> Message:
        wanted = wire.load(wire.Batch, request.get("batch"))
        _numpy()
        from device_worker import batch

        return self._leased(request, wanted, batch.run_batch)

    def _leased(self, request: Message, wanted: Any, work: Callable[..., Any]) -> Message:
        def progress(fields: Message) -> None:
            self._writer.send({"type": "progress", "id": request.get("id"), **fields})

        self._lease.check()
        try:
            result = work(wanted, self._cache, self._root, progress)
        finally:
            self._cache.unpin()
            # Results and failures alike: a new holder of the device may have caused either.
            self._lease.check()
        return {"type": "result", "result": wire.dump(result)}

    def _small(self, attempt: str) -> Dict[str, str]:
        """As many of the attempt's files, smallest first, as _SMALL bytes hold; base64 by path.

        One answer instead of several round trips a file: most attempts leave only small ones.
        """
        from device_worker.attempts import folder

        content, room = {}, _SMALL
        with storage("reading an attempt's files"):
            with os.scandir(folder(self._root, attempt)) as entries:
                sizes = sorted(
                    (entry.stat(follow_symlinks=False).st_size, entry.path)
                    for entry in entries
                    if entry.is_file(follow_symlinks=False)
                )
            for size, path in sizes:
                room -= size
                if room < 0:
                    break
                content[path] = base64.b64encode(read_plain(path, size)).decode()
        return content

    def _forget(self, attempt: str) -> None:
        from device_worker.attempts import folder

        with storage("deleting an attempt's files"):
            path = folder(self._root, attempt)
            if os.path.isdir(path):
                shutil.rmtree(path)

    def _quit(self, why: str) -> NoReturn:
        """Leave; the device leaves the power mode of a job with us, while it is still ours."""
        try:
            self._lease.check()
            power.end(self._root)
        except WorkerError as error:
            why = "%s; %s" % (why, error)
        _leave(why)

    def _abandon(self, error: WorkerError, status: int) -> NoReturn:
        """Say why and end the process, whatever the main thread is doing."""
        try:
            self._writer.send(error.message())
        except OSError:
            _leave(str(error))
        os._exit(status)


def _probe(request: Message) -> Dict[str, Any]:
    _numpy()
    from device_worker.runtimes import tflite

    spec = wire.load(wire.Delegate, request.get("delegate"))
    return tflite.probe(spec, _text(request, "runtime"))


def measuring() -> Any:
    """The measuring module. Raises WorkerError E-NUMPY-MISSING."""
    _numpy()
    from device_worker import measure

    return measure


def _numpy() -> None:
    """Devices without NumPy must say so plainly."""
    try:
        import numpy  # noqa: F401  # only to learn whether it is there
    except Exception as error:
        found = None
        if not isinstance(error, ModuleNotFoundError):
            found = shortage.importing("numpy", error)
        raise found or WorkerError(
            "infra_error",
            "E-NUMPY-MISSING",
            "NumPy cannot be imported on the device: %s" % told(error),
            "install numpy for the device's python3",
        ) from error


def _leave(why: str) -> NoReturn:
    """End without releasing the lease: the coordinator may only have lost the link."""
    try:
        sys.stderr.write("assay worker: leaving: %s\n" % why)
        sys.stderr.flush()
    finally:  # stderr leads to the coordinator too: that it is gone must not keep us here
        os._exit(EXIT_COORDINATOR_GONE)


def _sources(request: Message) -> List[wire.Source]:
    value = request.get("sources", [])
    if not isinstance(value, list):
        raise wire.WireError("sources: expected a list")
    return [wire.load(wire.Source, item) for item in value]


def _text(request: Message, key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        raise wire.WireError("%s: expected str" % key)
    return value


def _texts(request: Message, key: str) -> List[str]:
    value: Optional[Any] = request.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wire.WireError("%s: expected a list of str" % key)
    return value
