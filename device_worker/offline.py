"""Packed jobs run by hand, without a coordinator: from an unpacked archive to its result.

The folder of the archive is the root of a session: models and inputs lie in its cache. Every job
gets a process of its own, so that one that crashes or hangs leaves the others their turn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gzip
import io
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from device_worker import environment, plain, power, session, shortage, wire
from device_worker.archive import (
    DOCUMENT_LIMIT,
    MANIFEST_FILE,
    OUTCOMES,
    PYTHONS,
    RESULT,
    RESULT_FILE,
    START,
    WORKER,
    Answer,
    Manifest,
    PackedJob,
    canonical,
    result_name,
    seal,
    sha256_of,
)
from device_worker.cache import Cache
from device_worker.errors import EXIT_REFUSED, WorkerError, one_line, storage
from device_worker.guard import Clock
from device_worker.telemetry.parsers import Value
from device_worker.telemetry.sensors import Sensors, hottest

_CACHE_LIMIT = 1 << 62
"""Nothing is ever evicted: the cache holds what came with the archive."""
_SETTLE_POLL_S = 2.0
_FIXABLE = frozenset(
    {"E-NUMPY-MISSING", "E-DISK-FULL", "E-CACHE-MISS", "E-MODEL-HASH", "E-INPUT-HASH"}
)
"""Errors that whoever runs the archive can fix before it is run again: no answer for the farm."""
_BOOT_FAILED, _PYTHON_OLD = (97, 98), 78
_NO_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC)
_POLL_S = 0.2
_LOG, _LOG_LIMIT = "run.log", 1 << 20


def run_all(folder: str, manifest_sha256: str, python: Optional[str]) -> str:
    """Run every job of the archive in ``folder`` and write its result there; the result's path.

    ``python``: the interpreter for all jobs, if not the manifest's. A result is written whole or
    not at all, and not before every job has an answer. Raises WorkerError.
    """
    root = os.path.realpath(folder)
    manifest = load(root, manifest_sha256)
    clock, answers = Clock(), []
    with storage("clearing the folder of an earlier run"):
        for name in ("answers", "out"):
            shutil.rmtree(os.path.join(root, name), ignore_errors=True)
        os.makedirs(os.path.join(root, "answers"))
    for turn, packed in enumerate(manifest.jobs, 1):
        try:
            answer = _Child(root, manifest, manifest_sha256, packed, python).run()
        finally:
            power.recover(root)
        answers.append(answer)
        _say("%d/%d %s: %s" % (turn, len(manifest.jobs), packed.cell, _told(answer)))
    data: Dict[str, Any] = {
        "schema": RESULT,
        "nonce": manifest.nonce,
        "manifest_sha256": manifest_sha256,
        "worker_sha256": session.bundle_sha256(),
        "started_unix": clock.started,
        "ended_unix": clock.now(),
        "environment": environment.describe(),
        "facts": _facts(manifest.facts),
        "answers": [wire.dump(answer) for answer in answers],
    }
    data["seal"] = seal(manifest_sha256, data)
    path = os.path.join(root, result_name(manifest.nonce))
    with storage("writing the result"):
        _write(path, canonical(data), _files(answers))
    _say("result: %s" % path)
    return path


def _facts(sources: List[wire.Source]) -> Dict[str, Value]:
    if not sources:  # none would mean the usual ones
        return {}
    with Sensors(sources) as sensors:
        return sensors.facts()


def run_one(folder: str, manifest_sha256: str, attempt: str) -> None:
    """Run one job of the archive and leave its answer in ``answers/``. Raises WorkerError."""
    root = os.path.realpath(folder)
    manifest = load(root, manifest_sha256)
    packed = next((p for p in manifest.jobs if p.job.attempt == attempt), None)
    if packed is None:
        raise WorkerError("infra_error", "E-WIRE", "the archive has no attempt %r" % attempt[:80])
    data = canonical(wire.dump(_answer(root, packed)))
    path = _answer_path(root, attempt)
    with storage("writing an answer"):
        with open(path + ".part", "wb") as file:
            file.write(data)
        os.replace(path + ".part", path)


def load(root: str, sha256: str) -> Manifest:
    """The manifest in ``root``. Raises WorkerError E-WIRE unless it is the one of that hash."""
    with storage("reading the manifest"), open(os.path.join(root, MANIFEST_FILE), "rb") as file:
        text = file.read()
    try:
        data = plain.decode(text, DOCUMENT_LIMIT)
        if sha256_of(data) != sha256:
            raise wire.WireError("it is not the one that was packed")
        return wire.load(Manifest, data)
    except (wire.WireError, ValueError) as error:
        what = "%s is damaged: %s" % (MANIFEST_FILE, error)
        raise WorkerError("infra_error", "E-WIRE", what, "unpack the archive again") from error


class _Child:
    """The process of one job."""

    def __init__(
        self,
        root: str,
        manifest: Manifest,
        manifest_sha256: str,
        packed: PackedJob,
        python: Optional[str],
    ) -> None:
        self._root, self._packed = root, packed
        self._hermetic = python is None and manifest.jobs[0].bundle is not None
        self._bundle = None if python else packed.bundle
        self._own = packed.own_python and python is None and self._bundle is None
        self._python = [python or packed.python]
        if self._bundle is not None:
            self._python = ["sh", os.path.join(root, PYTHONS, self._bundle[:16], "py")]
        self._command = [
            *(*self._python, os.path.join(root, START), os.path.join(root, WORKER)),
            *(manifest.worker.sha256, "offline", "--folder", root),
            *("--manifest", manifest_sha256, "--attempt", packed.job.attempt),
        ]

    def run(self) -> Answer:
        """Raises WorkerError for what can be fixed here before the archive is run again."""
        clock = Clock()
        try:
            code, said = self._wait(time.monotonic() + self._packed.timeout_s)
        except OSError as error:
            if error.errno not in _NO_PROGRAM:
                raise WorkerError(
                    "infra_error", "E-WORKER-IO", "starting a job failed: %s" % error
                ) from error
            return self._no_python(clock, str(error.strerror))
        with storage("writing %s" % _LOG), open(os.path.join(self._root, _LOG), "ab") as log:
            log.write(said)
        text = said.decode("utf-8", "replace").strip()
        last = one_line(text.splitlines()[-1] if text else "")
        if code is None:
            what = "the cell was not done within %g s" % self._packed.timeout_s
            return self._ended(clock, "timeout", "E-CELL-TIMEOUT", what)
        answer = self._left(code)
        if answer is not None:
            if answer.code in _FIXABLE:
                raise WorkerError(answer.outcome, answer.code or "", answer.what, answer.mend)
            return answer
        if code in _BOOT_FAILED:
            what = "%s is missing or damaged" % WORKER
            raise WorkerError("infra_error", "E-WORKER-HASH", what, "unpack the archive again")
        if code in (126, 127):
            return self._no_python(clock, last)
        if code in (_PYTHON_OLD, EXIT_REFUSED):
            # The worker's own line, which ends with its ID.
            text, _, mark = last.partition("assay worker: ")[2].rpartition(" [")
            raise WorkerError("infra_error", mark.rstrip("]") or "E-WORKER-DIED", text or last)
        if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            what = "worker was killed (SIGKILL; the out-of-memory killer does this)"
            return self._ended(clock, "infra_error", "E-WORKER-KILLED", what)
        what = "worker ended (%s): %s" % ("a signal" if code < 0 else "exit %d" % code, last)
        return self._ended(clock, "infra_error", "E-WORKER-DIED", what)

    def _wait(self, deadline: float) -> Tuple[Optional[int], bytes]:
        """Its exit status, None when its time was over, and the end of what it printed.

        Printed into a pipe and not a file, so that it can still tell of a full disk.
        OSError: it cannot be started.
        """
        env = dict(os.environ)
        if self._hermetic:  # its variables would break another interpreter
            env = {k: v for k, v in env.items() if not k.startswith("PYTHON")}
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**env, **self._packed.env},
            cwd=self._root,
            start_new_session=True,
        )
        assert process.stdout is not None  # a pipe was asked for
        said, open_ = b"", True
        try:
            while process.poll() is None or open_:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None, said
                if not open_:
                    time.sleep(min(left, _POLL_S))
                elif select.select([process.stdout], [], [], min(left, _POLL_S))[0]:
                    chunk = os.read(process.stdout.fileno(), _LOG_LIMIT)
                    said, open_ = (said + chunk)[-_LOG_LIMIT:], bool(chunk)
                elif process.poll() is not None:
                    break  # a process that it left behind holds the pipe
            return process.returncode, said
        finally:
            # Also what it has started, and also when Ctrl-C ends us.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()

    def _left(self, code: int) -> Optional[Answer]:
        path = _answer_path(self._root, self._packed.job.attempt)
        if code != 0 or not os.path.exists(path):
            return None
        with storage("reading an answer"), open(path, "rb") as file:
            answer = wire.load(Answer, plain.decode(file.read(), DOCUMENT_LIMIT))
        return dataclasses.replace(answer, bundle=self._bundle)

    def _no_python(self, clock: Clock, why: str) -> Answer:
        what = "cannot start Python %r: %s" % (" ".join(self._python), why)
        if not self._own:
            fix = "name one: sh run.sh PYTHON"
            raise WorkerError("infra_error", "E-DEVICE-PYTHON", what, fix)
        what = "%s has no Python here: %s" % (self._packed.job.runtime.runtime, what)
        return self._ended(clock, "not_available", "E-RUNTIME-MISSING", what)

    def _ended(self, clock: Clock, outcome: str, code: str, what: str) -> Answer:
        assert outcome in OUTCOMES
        attempt = self._packed.job.attempt
        shutil.rmtree(os.path.join(self._root, "out", attempt), ignore_errors=True)
        return Answer(attempt, outcome, clock.started, clock.now(), code, what)


def _answer(root: str, packed: PackedJob) -> Answer:
    clock, job = Clock(), packed.job
    start: Dict[str, Optional[float]] = {}
    try:
        measure = session.measuring()
        start = _settle(packed)
        result = measure.run_job(job, Cache(root, _CACHE_LIMIT), root, _quiet)
    except WorkerError as error:
        failure = error
    except Exception as error:  # noqa: BLE001  a bug must reach the farm as an answer
        failure = shortage.unexpected(error)
    else:
        files = {role: file.blob for role, file in result.files.items()}
        files.update(("output-%d" % i, output.blob) for i, output in enumerate(result.outputs))
        times = (result.started_unix, result.ended_unix)
        return Answer(job.attempt, "ok", *times, start=start, result=result, files=files)
    return Answer(
        job.attempt,
        failure.kind,
        clock.started,
        clock.now(),
        failure.code,
        failure.what,
        failure.fix,
        start,
    )


def _settle(packed: PackedJob) -> Dict[str, Optional[float]]:
    """Wait until the device may start, as long as the gate gives it; its sensors then.

    What is still unmet is for the farm to judge by them.
    """
    gate, job = packed.gate, packed.job
    if gate.max_start_c is None and gate.min_battery is None and job.ceiling_c is None:
        return {}
    limits = [limit for limit in (gate.max_start_c, job.ceiling_c) if limit is not None]
    deadline = time.monotonic() + gate.settle_s
    with Sensors(job.sources) as sensors:
        while True:
            values = sensors.read(0.0).values
            celsius, level = hottest(values), values.get("battery/level")
            hot = celsius is not None and any(celsius > limit for limit in limits)
            low = level is not None and gate.min_battery is not None and level < gate.min_battery
            left = deadline - time.monotonic()
            if left <= 0 or not (hot or low):
                return dict(values)
            time.sleep(min(_SETTLE_POLL_S, left))


def _quiet(fields: Dict[str, Any]) -> None:
    """Nobody listens to the progress within a job."""


def _answer_path(root: str, attempt: str) -> str:
    return os.path.join(root, "answers", "%s.json" % attempt)


def _files(answers: List[Answer]) -> Iterator[Tuple[str, str]]:
    """(sha256, path) of the files that the answers refer to; each content once."""
    seen = set()
    for answer in answers:
        if answer.result is None:
            continue
        outputs = [(output.blob.sha256, output.path) for output in answer.result.outputs]
        others = [(file.blob.sha256, file.path) for file in answer.result.files.values()]
        for sha256, path in [*outputs, *others]:
            if sha256 not in seen:
                seen.add(sha256)
                yield sha256, path


def _write(path: str, result: bytes, files: Iterator[Tuple[str, str]]) -> None:
    """The archive at ``path``, whole or not at all: first the document, then the files by hash."""
    part = path + ".part"
    try:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(open(part, "wb"))
            stream = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
            tar = stack.enter_context(
                tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT)
            )
            info = tarfile.TarInfo(RESULT_FILE)
            info.size = len(result)
            tar.addfile(info, io.BytesIO(result))
            for sha256, source in files:
                info = tarfile.TarInfo("files/%s" % sha256)
                info.size = os.path.getsize(source)
                with open(source, "rb") as file:
                    tar.addfile(info, file)
        fd = os.open(part, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def _told(answer: Answer) -> str:
    took = "%.1f s" % (answer.ended_unix - answer.started_unix)
    if answer.code is None:
        return "%s, %s" % (answer.outcome, took)
    return "%s, %s: %s [%s]" % (answer.outcome, took, answer.what, answer.code)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
