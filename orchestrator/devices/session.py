"""A leased device: the link, its worker processes (one per Python), and what its cache holds."""

from __future__ import annotations

import base64
import hashlib
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from device_worker import fence, wire
from device_worker.fence import NO_STORE, Claim
from orchestrator.devices.bundle import BOOTSTRAP, CORRUPT, MISSING, BundleFile, worker_bundle
from orchestrator.devices.hermetic import bring, transfer_deadline
from orchestrator.devices.identity import ANYBODY, Identity, confirm
from orchestrator.devices.worker import Worker
from orchestrator.errors import AssayError, InfraError
from orchestrator.queue.fences import RefusedError, Remembered
from orchestrator.results import files
from orchestrator.results.check import Asked, Declared, announced
from orchestrator.transports import failures
from orchestrator.transports.base import Transport
from orchestrator.transports.settings import TransportSettings

START_S = 120.0
"""Start of a worker, first import of nothing but the standard library: slow boards, slow disks."""


LINK_S = 15.0
"""How long a link gets to answer once the worker behind it has fallen silent."""


HEARTBEAT_S = 2.0
"""How often a worker lets itself be heard of, unless a shorter silence counts already."""


ANSWERS_LIMIT = 256 << 20
"""Bytes of the archive with a batch's answers."""


HEARTBEATS_S = 5.0
"""Two heartbeats of a worker that is alive, and time for them to arrive."""


class Limits(NamedTuple):
    """Deadlines in seconds of one cell on the device, and of silence on its channel."""

    cell: float = 1200.0
    silence: float = 180.0


CatchUp = Callable[[Remembered], tuple[int, Claim]]
"""From what a device remembers to a token and claim that it lets in. Raises InfraError."""


class DeviceSession:
    """Context manager around one transport. One thread at a time.

    Entering it raises what opening the transport does, and as `confirm` for another unit than
    ``identity`` says, before anything is sent there. ``cache_limit``: bytes that models and inputs
    may take on the device; None: the worker's own. ``claim``: what the store shows besides the
    token. ``catch_up``: asked once for a lease above what the device turns out to remember.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        device: str,
        owner: str,
        token: int,
        limits: Limits,
        cache_limit: int | None = None,
        identity: Identity = ANYBODY,
        claim: Claim = NO_STORE,
        catch_up: CatchUp | None = None,
    ) -> None:
        self._transport, self._device, self._limits = transport, device, limits
        self._owner, self._token, self._cache_limit = owner, token, cache_limit
        self._identity, self._catch_up = identity, catch_up
        self._claim = replace(claim, device=device)
        self._workers: dict[str, Worker] = {}
        self._serves: dict[str, str] = {}
        self.bytes_pushed = 0

    def __enter__(self) -> Self:
        self._transport.__enter__()
        try:
            confirm(self._transport, self._identity, device=self._device)
        except BaseException:
            self._transport.__exit__(None, None, None)
            raise
        return self

    @property
    def reached(self) -> TransportSettings:
        """How it is reached again where it was found (Transport.settings)."""
        return self._transport.settings

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._transport.__exit__(exc_type, exc, tb)

    def worker(
        self,
        python: str,
        env: Mapping[str, str] | None = None,
        hermetic: BundleFile | None = None,
        runtime: str | None = None,
    ) -> Worker:
        """The warm worker under this interpreter, started (and its bundle pushed) if need be.

        ``hermetic``: the bundle whose Python it is; ``python`` is then only a name for it.
        ``runtime``: what it is to run. A process that has served another one is not reused, for
        runtimes leave it changed (on ARM, XNNPACK has it flush denormals from then on).
        """
        if runtime is not None:
            if self._serves.get(python, runtime) != runtime:
                self.retire(python)
            self._serves[python] = runtime
        if python not in self._workers:
            self._workers[python] = self._start(self._interpreter(python, hermetic), env)
        return self._workers[python]

    def blamed(self, error: AssayError) -> AssayError:
        """``error``, or E-LINK when it is a silence that the link is to blame for.

        A worker that hangs is an answer about the model; a pulled cable is none.
        """
        if error.id not in ("E-SILENCE", "E-CELL-TIMEOUT"):
            return error
        try:
            self._transport.ping(timeout=LINK_S)
        except AssayError:
            why = f"neither the worker nor the device's shell answers ({error.what})"
            return failures.link_down(self._device, why)
        if any(worker.was_cut_off(HEARTBEATS_S) for worker in self._workers.values()):
            return failures.link_down(self._device, f"it is back after a silence ({error.what})")
        return error

    def drop(self, python: str) -> None:
        """Kill the worker under this interpreter; the next use starts a new one."""
        worker = self._workers.pop(python, None)
        if worker is not None:
            worker.kill()

    def retire(self, python: str) -> None:
        """Let the worker under this interpreter end by itself if it can; kill it otherwise."""
        worker = self._workers.pop(python, None)
        if worker is not None:
            worker.close()

    def ensure(self, worker: Worker, blobs: Mapping[str, Path]) -> None:
        """Bring every blob (sha256 -> local file) into the device's cache; send only what lacks."""
        present = worker.ask("have", sha256=sorted(blobs), timeout=self._limits.silence)
        for sha in sorted(set(blobs) - set(present["present"])):
            remote = self._transport.root() / "incoming" / f"{sha[:16]}-{secrets.token_hex(4)}"
            size = blobs[sha].stat().st_size
            self._transport.push(blobs[sha], remote, timeout=transfer_deadline(size))
            self.bytes_pushed += size
            worker.ask("adopt", sha256=sha, path=str(remote), timeout=self._limits.silence)

    def run(
        self,
        worker: Worker,
        job: wire.Job,
        into: Path,
        progress: Callable[[int], None] | None = None,
        timeout: float | None = None,
        outputs: Sequence[Declared] = (),
    ) -> wire.JobResult:
        """Run a job and bring its files into the folder ``into``, each checked against its hash.

        ``timeout``: seconds for this job, the session's limit for a cell unless given. Files are
        named ``output-<i>`` and by their role. Raises as `Worker.run`, InfraError E-TRANSFER-HASH,
        and E-RESULT-… for an answer that cannot be one (``outputs``: of the model, if known).
        """
        limit = self._limits.cell if timeout is None else timeout
        result = worker.run(job, timeout=limit, progress=progress)
        with files.of_device(self._device):
            announced(result, Asked(job, self._device, self._token, outputs))
            wanted = files.wanted(result, job.samples)
        small = worker.ask("fetch", attempt=job.attempt, timeout=self._limits.silence)["files"]
        for name, remote, file in wanted:
            self._bring(file, job.attempt, remote, into / name, small)
        worker.ask("forget", attempt=job.attempt, timeout=self._limits.silence)
        return result

    def batch(
        self, worker: Worker, batch: wire.Batch, into: Path, timeout: float | None = None
    ) -> wire.BatchResult:
        """Run a batch, whose archive `ensure` has brought, and write its answers to ``into``."""
        limit = self._limits.cell if timeout is None else timeout
        result = worker.batch(batch, timeout=limit)
        with files.of_device(self._device):
            if (result.attempt, result.archive_sha256) != (batch.attempt, batch.archive.sha256):
                files.refuse("E-RESULT-JOB", "the worker answered for another batch")
            if not 0 < result.answers.blob.size <= ANSWERS_LIMIT:
                files.refuse("E-RESULT-SIZE", f"its answers have {result.answers.blob.size} bytes")
            remote = files.place(result.answers, batch.attempt)
        self._bring(result.answers, batch.attempt, remote, into, {})
        worker.ask("forget", attempt=batch.attempt, timeout=self._limits.silence)
        return result

    def _bring(
        self,
        file: wire.DeviceFile,
        attempt: str,
        remote: str,
        local: Path,
        small: Mapping[str, str],
    ) -> None:
        """From ``small`` (path -> base64) where it is there, else by the transport.

        ``remote``: its name in the attempt's folder. No more bytes come than were announced.
        """
        size = file.blob.size
        if file.path in small:
            local.write_bytes(self._decoded(small[file.path]))
        else:
            place = self._transport.root() / "out" / attempt / remote
            self._transport.pull(place, local, timeout=transfer_deadline(size), limit=size)
        with local.open("rb") as stream:
            got = hashlib.file_digest(stream, "sha256").hexdigest()
        if got != file.blob.sha256:
            local.unlink()
            raise InfraError(
                "E-TRANSFER-HASH",
                f"{local.name} changed on its way from the device",
                where=self._device,
            )

    def _decoded(self, text: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except ValueError as error:
            raise InfraError(
                "E-WORKER-GARBAGE", f"a file came as no base64: {error}", where=self._device
            ) from error

    def _interpreter(self, python: str, hermetic: BundleFile | None) -> tuple[str, ...]:
        if hermetic is None:
            return (python,)
        brought = bring(self._transport, hermetic, device=self._device)
        self.bytes_pushed += brought.pushed
        # Not by its first line: an Android of old has no /bin/sh.
        return "sh", str(brought.python)

    def _start(self, python: tuple[str, ...], env: Mapping[str, str] | None) -> Worker:
        try:
            return self._launch(python, env)
        except RefusedError as error:
            seen = error.refusal.remembered
            if seen is None or self._catch_up is None:
                raise
            self._token, claim = self._catch_up(seen)
            self._claim = replace(claim, device=self._device)
        return self._launch(python, env)

    def _launch(self, python: tuple[str, ...], env: Mapping[str, str] | None) -> Worker:
        bundle = worker_bundle()
        remote = self._transport.root() / "worker" / bundle.name
        # A worker must be heard of several times before its silence counts.
        beat = ("--heartbeat", f"{min(HEARTBEAT_S, self._limits.silence / 4):g}")
        cache = () if self._cache_limit is None else ("--cache-limit", str(self._cache_limit))
        owned = ("--owner", self._owner, "--token", str(self._token))
        claim = ("--claim", fence.encode(self._claim))
        args = ("session", "--root", str(self._transport.root()), *owned, *claim, *beat, *cache)
        argv = [*python, "-c", BOOTSTRAP, str(remote), bundle.sha256, *args]
        for attempt in range(2):
            channel = self._transport.start(argv, env=env)
            worker = Worker(channel, where=self._device, silence=self._limits.silence)
            try:
                worker.greet(START_S)
                if self._catch_up is not None:
                    # Only a worker that has the lease answers.
                    worker.ask("noop", timeout=START_S)
                return worker
            except InfraError as error:
                worker.kill()
                if channel.returncode() not in (MISSING, CORRUPT):
                    raise
                if attempt == 1:
                    what = "the worker bundle does not arrive whole on the device"
                    raise InfraError("E-WORKER-HASH", what, where=self._device) from error
            with tempfile.NamedTemporaryFile() as file:
                file.write(bundle.data)
                file.flush()
                size = len(bundle.data)
                self._transport.push(Path(file.name), remote, timeout=transfer_deadline(size))
                self.bytes_pushed += size
        raise AssertionError("unreachable: the loop returns or raises")


@dataclass(frozen=True)
class Grant:
    """Under what a device is driven by the process itself: see DeviceSession.

    ``stored``: a store granted it, so that its lease was tried and not only the device's.
    """

    owner: str
    token: int
    claim: Claim = NO_STORE
    catch_up: CatchUp | None = None
    stored: bool = False

    def session(
        self,
        transport: Transport,
        *,
        device: str,
        limits: Limits,
        cache_limit: int | None = None,
        identity: Identity = ANYBODY,
    ) -> DeviceSession:
        """A session under this grant."""
        return DeviceSession(
            transport,
            device=device,
            owner=self.owner,
            token=self.token,
            limits=limits,
            cache_limit=cache_limit,
            identity=identity,
            claim=self.claim,
            catch_up=self.catch_up,
        )
