"""What the operating system refuses this process, found by asking for it.

Runtimes word a refusal differently in every version, and the words of one cause are often those of
another. So a failure is not read but followed up: what did the kernel count as refused meanwhile,
and does it grant threads, memory, descriptors, processors and room to write now? Only what remains
may be the model's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import mmap
import os
import resource
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

from device_worker import cgroups
from device_worker.errors import SHORTAGES, WorkerError, from_os, out_of_memory, short

STUCK_S = 15.0
"""Loading a model for this long is no news; but when something was refused as well, it hangs."""
_SPARE = 32 << 20
"""Bytes beyond its file that any model takes: arenas of the allocator, a thread's stack."""
_STACK = 8 << 20
"""Bytes of a thread's stack where no limit says another size."""
_DESCRIPTORS = 8
_WRITTEN = 16 << 20
"""Most bytes written to see whether a folder takes them."""


_AT_WORK = "working on a request"
_SUSPICIOUS = ("E-DELEGATE-LIBRARY", "E-DELEGATE-DEVICE", "E-DELEGATE-CRASH", "E-DELEGATE-APPLY")
"""Refusals besides the model's that may only say that something ran out."""


@dataclass(frozen=True)
class Need:
    """What a job asks of the device.

    ``size``: bytes of what it loads; ``cpus``: those that threads are to be bound to; ``folders``:
    written to, None for the one of temporary files.
    """

    threads: int = 1
    size: int = 0
    cpus: Tuple[int, ...] = ()
    folders: Tuple[Optional[str], ...] = (None,)


def of(error: BaseException) -> Optional[WorkerError]:
    """The shortage that an exception of Python's own is by its type or errno; else None."""
    if isinstance(error, WorkerError):
        return error
    if isinstance(error, MemoryError):
        return out_of_memory("the device ran out of memory")
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        return from_os(error, _AT_WORK)
    return None


def unexpected(error: BaseException) -> WorkerError:
    """What an exception that nobody expected means: something ran out, or else a bug."""
    found = of(error) or now(Need())
    if found is None and isinstance(error, OSError):
        found = from_os(error, _AT_WORK)
    if found is not None:
        return found
    traceback.print_exception(type(error), error, error.__traceback__)
    return WorkerError("infra_error", "E-WORKER-BUG", "%s: %s" % (type(error).__name__, error))


def importing(module: str, error: BaseException) -> Optional[WorkerError]:
    """The shortage behind an ``error`` while a module was imported that is there; else None.

    A loader says the same of too little address space and of a folder mounted noexec.
    """
    return of(error) or now(Need(size=_libraries(module.partition(".")[0])))


def now(need: Need) -> Optional[WorkerError]:
    """What cannot be had at this moment, as infra_error; None when all of it can."""
    # Descriptors first: without one nothing else can be looked at.
    return (
        _descriptors()
        or _memory(2 * need.size + _SPARE)
        or threads(need.threads)
        or cpus(need.cpus)
        or next(filter(None, (_written(folder, need.size) for folder in need.folders)), None)
    )


class Watch:
    """Follows one job: what is refused from here on is the device's trouble."""

    def __init__(self, need: Need) -> None:
        self._need, self._before = need, cgroups.refusals()
        self._since: Optional[float] = None

    def cause(self) -> Optional[WorkerError]:
        """What was refused since the start, or is refused now."""
        return self._counted() or now(self._need)

    @contextlib.contextmanager
    def section(self) -> Iterator[None]:
        """Meanwhile the main thread may hang in a runtime that was refused something."""
        global _watching
        self._since, _watching = time.monotonic(), self
        try:
            yield
        finally:
            self._since = _watching = None

    def follow(self, error: WorkerError) -> WorkerError:
        """``error``, or the shortage behind it where a runtime refused what it should not."""
        if error.kind != "model_error" and error.code not in _SUSPICIOUS:
            return error
        cause = self.cause()
        if cause is None:
            return error
        told = "%s; the runtime says: %s" % (cause.what, error.what)
        return WorkerError(cause.kind, cause.code, told, cause.fix)

    def stuck(self) -> Optional[WorkerError]:
        """Why the section does not end, once that is suspicious. For another thread to ask."""
        since = self._since
        if since is None or time.monotonic() - since < STUCK_S:
            return None
        # One thread more must be had in any case: telemetry's.
        return self._counted() or threads(1)

    def _counted(self) -> Optional[WorkerError]:
        refused = cgroups.since(self._before, cgroups.refusals())
        if refused is None:
            return None
        told = "the control group %s refused %s" % (refused.path, refused.what)
        return out_of_memory(told) if refused.what == cgroups.MEMORY else short(told)


_watching: Optional[Watch] = None
"""Whoever is in its section: a process runs one job at a time."""


def stuck() -> Optional[WorkerError]:
    """Why this process hangs in a runtime, where it does and a shortage tells why."""
    watch = _watching
    return None if watch is None else watch.stuck()


def passed(what: str, error: WorkerError) -> WorkerError:
    """A refusal of ``what`` of which nothing is known but that it passed."""
    return short("the device refused %s and grants it now; it said: %s" % (what, error.what))


def start(thread: threading.Thread) -> None:
    """Start a thread of the worker's own. Raises WorkerError where the device has none for it."""
    try:
        thread.start()
    except RuntimeError as error:
        raise _no_thread("the device refused a thread") from error


def must_have_threads(count: int) -> None:
    """For a runtime that is about to start so many: refused one, it may never return.

    Raises WorkerError E-WORKER-SHORT, E-WORKER-OOM.
    """
    refused = threads(count)
    if refused is not None:
        raise refused


def threads(count: int) -> Optional[WorkerError]:
    """Whether so many more threads can live at once."""
    gate = threading.Event()
    alive: List[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=gate.wait, daemon=True)
            thread.start()
            alive.append(thread)
    except (RuntimeError, MemoryError):
        told = "the device refused threads: %d of %d could be started" % (len(alive), count)
        return _no_thread(told)
    finally:
        gate.set()
        for thread in alive:
            thread.join()
    return None


def _no_thread(told: str) -> WorkerError:
    """Why there is none: no memory for its stack, or a limit, which is named where it is known."""
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    memory = _memory(_STACK if stack == resource.RLIM_INFINITY else stack)
    if memory is not None:
        return memory
    limit = cgroups.full()
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit is None and soft != resource.RLIM_INFINITY:
        limit = "ulimit -u is %d" % soft
    return short("%s (%s)" % (told, limit) if limit else told)


def _memory(size: int) -> Optional[WorkerError]:
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError, OverflowError):
        limits = (("ulimit -v", resource.RLIMIT_AS), ("ulimit -d", resource.RLIMIT_DATA))
        known = ((name, resource.getrlimit(kind)[0]) for name, kind in limits)
        told = ["%s is %d KiB" % (n, v >> 10) for n, v in known if v != resource.RLIM_INFINITY]
        more = " (%s)" % ", ".join(told) if told else ""
        return out_of_memory("the device refused %d MiB of memory%s" % (size >> 20, more))
    return None


def _descriptors() -> Optional[WorkerError]:
    held: List[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return from_os(error, "opening a file")
    finally:
        for fd in held:
            os.close(fd)
    return None


def cpus(wanted: Tuple[int, ...]) -> Optional[WorkerError]:
    """Whether a thread can be bound to each of them, as a runtime does with its own."""
    if not wanted or not hasattr(os, "sched_setaffinity"):
        return None
    refused: List[int] = []

    def bind() -> None:
        for cpu in wanted:
            try:
                os.sched_setaffinity(0, {cpu})  # 0: of this thread alone
            except (OSError, ValueError, OverflowError):
                refused.append(cpu)

    thread = threading.Thread(target=bind)
    thread.start()
    thread.join()
    if not refused:
        return None
    mine = sorted(os.sched_getaffinity(0))
    return short("the device refused processor %d; those it grants: %s" % (refused[0], mine))


def _written(folder: Optional[str], size: int) -> Optional[WorkerError]:
    """Whether ``folder`` takes as many bytes as the model has, down to the medium."""
    left = max(min(size, _WRITTEN), 1 << 16)
    block = os.urandom(1 << 16)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            while left > 0:  # a write that meets a limit is cut short, the next one says why
                left -= file.write(block[:left])
            os.fsync(file.fileno())
    except OSError as error:
        return from_os(error, "writing to %s" % (folder or "the folder of temporary files"))
    return None


def _libraries(package: str) -> int:
    """Bytes of the native libraries that come with a package, in it or beside it."""
    found = importlib.util.find_spec(package)
    total = 0
    for folder in (found.submodule_search_locations if found else None) or ():
        for place in (folder, folder + ".libs"):
            for where, _, names in os.walk(place):
                total += sum(os.stat(os.path.join(where, n)).st_size for n in names if ".so" in n)
    return total
