"""A hub drives many devices, each from its own thread; the work is waiting for links.

Runs as a Ray actor (cluster.py) or inside the coordinator (inprocess.py); knows neither.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from device_worker import wire
from device_worker.scratch import scratch
from orchestrator.devices.session import DeviceSession, Limits
from orchestrator.devices.worker import Worker
from orchestrator.errors import AssayError, InfraError, NotAvailableError
from orchestrator.fanout.accelerator import Accelerator, used
from orchestrator.fanout.hub_job import Order, Target
from orchestrator.fanout.spool import Spool
from orchestrator.fanout.start_gate import gate
from orchestrator.results.encoding import VERSION, encode
from orchestrator.results.finished import Failure, Finished, unexpected
from orchestrator.transports import TransportSettings, open_transport


class Hub:
    """Thread-safe: orders of different devices run side by side, of one device in turn."""

    def __init__(self, spool: Path, name: str | None = None) -> None:
        """Where a hub spools, and its name.

        ``spool``: a folder on this host (``~`` is its user's). ``name``: as inventories call it,
        None for the coordinator's own host.
        """
        spool = spool.expanduser()
        self._name = f"{name}@{socket.gethostname()}" if name else socket.gethostname()
        self._spool = Spool(spool)
        self._blobs = spool / "blobs"
        self._sessions: dict[str, tuple[Target, DeviceSession]] = {}
        self._places: dict[str, tuple[Target, TransportSettings]] = {}
        self._accelerators: dict[str, Accelerator] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def form(self) -> int:
        """Which form of finished attempts it sends (`results.encoding`)."""
        return VERSION

    def pid(self) -> int:
        return os.getpid()

    def run(self, order: Order) -> Finished:
        """Carry out one order; whatever goes wrong on the way is the attempt's own failure."""
        with self._lock(order.target.device):
            finished = self._run(order)
        try:
            self._spool.keep(finished.attempt, encode(finished))
        except Exception as error:  # noqa: BLE001  what is not kept was not delivered: as in _run
            failure = Failure.of(_trouble(error, order.target.device))
            finished = dataclasses.replace(finished, failure=failure, result=None, files={})
        return finished

    def lacks(self, paths: dict[str, str]) -> list[str]:
        """Which blobs (sha256 -> path at the coordinator) this hub cannot read on its own disk."""
        return [
            s for s, path in paths.items() if not (Path(path).exists() or self._own(s).exists())
        ]

    def receive(self, sha256: str, data: bytes) -> None:
        """Keep a blob that the coordinator's disk has and this hub's has not."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InfraError("E-TRANSFER-HASH", f"blob {sha256[:12]} changed on its way to the hub")
        self._blobs.mkdir(parents=True, exist_ok=True)
        part = self._own(sha256).with_suffix(f".{threading.get_ident()}.part")
        part.write_bytes(data)
        part.replace(self._own(sha256))

    def spooled(self) -> list[str]:
        return self._spool.pending()

    def run_encoded(self, order: Order) -> bytes:
        """As `run`, for a coordinator in another process."""
        return encode(self.run(order))

    def redeliver(self, attempt: str) -> bytes:
        """The attempt as it was kept. Raises InfraError E-HUB-SPOOL."""
        return self._spool.load(attempt)

    def forget(self, attempts: list[str]) -> None:
        self._spool.forget(attempts)

    def let_go(self, device: str) -> None:
        """End the session with a device (its lease is given back)."""
        with self._lock(device):
            self._close(device)
            self._places.pop(device, None)

    def close(self) -> None:
        for device in list(self._places):
            self.let_go(device)

    def _run(self, order: Order) -> Finished:
        started, failure, result, notes = time.time(), None, None, tuple[str, ...]()
        began = time.monotonic()
        files: dict[str, bytes] = {}
        session: DeviceSession | None = None
        pushed = 0
        try:
            if order.unavailable or order.python is None:
                raise NotAvailableError(
                    order.unavailable_id,
                    order.unavailable or f"no Python for {order.job.runtime.runtime}",
                    where=order.target.device,
                )
            session = self._session(order.target, order.limits)
            pushed = -session.bytes_pushed
            result, files, notes = self._carry_out(session, order, order.python)
        except Exception as error:  # noqa: BLE001  the edge: nothing of one cell ends the others
            failure = self._failed(order, session, error)
        if session is not None:
            pushed += session.bytes_pushed
        return Finished(
            attempt=order.job.attempt,
            device=order.target.device,
            token=order.target.token,
            started_unix=started,
            ended_unix=started + time.monotonic() - began,
            failure=failure,
            result=None if failure else result,
            files={} if failure else files,
            bytes_pushed=max(pushed, 0),
            timing_notes=notes,
            hub=self._name,
        )

    def _carry_out(
        self, session: DeviceSession, order: Order, python: str
    ) -> tuple[dict[str, Any], dict[str, bytes], tuple[str, ...]]:
        accelerator = self._accelerators.setdefault(order.target.device, Accelerator())
        recovered = accelerator.ready(order, lambda golden: self._rehearse(session, golden))
        worker = self._worker(session, order, python)
        session.ensure(worker, {s: self._readable(s, p) for s, p in order.blobs.items()})
        notes = gate(worker, order)
        with scratch("cell") as folder:
            result = _ran(session, worker, order, Path(folder))
            _check_identity(order.target, result.environment)
            files = {p.name: p.read_bytes() for p in Path(folder).iterdir()}
        accelerator.worked(order, files.get("sample_hashes", b""))
        told: dict[str, Any] = {"clock_offset_s": worker.clock_offset, "recovered": recovered}
        told["bundle"] = order.bundle and {"name": order.bundle.name, "sha256": order.bundle.sha256}
        return {**wire.dump(result), **told}, files, notes

    def _rehearse(self, session: DeviceSession, order: Order) -> tuple[bytes, int]:
        """Carry out an order of which nothing is kept (see `accelerator`)."""
        assert order.python is not None  # it, or one just like it, is about to be carried out
        try:
            worker = self._worker(session, order, order.python)
            session.ensure(worker, {s: self._readable(s, p) for s, p in order.blobs.items()})
            with scratch("cell") as folder:
                result = _ran(session, worker, order, Path(folder))
                return (Path(folder) / "sample_hashes").read_bytes(), result.repeats.mismatches
        except AssayError:
            session.retire(order.python)
            raise

    def _failed(self, order: Order, session: DeviceSession | None, error: Exception) -> Failure:
        try:
            known = _trouble(error, order.target.device)
            failure = Failure.of(session.blamed(known) if session else known)
            self._after_failure(order, failure)
        except Exception as second:  # noqa: BLE001  as where this is called
            return Failure.of(_trouble(second, order.target.device))
        return failure

    def _after_failure(self, order: Order, failure: Failure) -> None:
        """Start clean next time: a worker that failed is not trusted to be warm."""
        device = order.target.device
        if device in self._accelerators:
            self._accelerators[device].failed(order, failure)
        if failure.outcome == "infra_error":
            self._close(device)
        elif device in self._sessions and order.python is not None:
            session = self._sessions[device][1]
            # A process killed while it talks to an accelerator may leave it wedged.
            end = session.drop if used(order.job) is None else session.retire
            end(order.python)

    def _session(self, target: Target, limits: Limits) -> DeviceSession:
        known = self._sessions.get(target.device)
        if known is not None and known[0] == target:
            return known[1]
        self._close(target.device)
        # Under one lease it stays where it was first found: a phone that comes back at another
        # port may be another phone.
        place = self._places.get(target.device)
        found = place[1] if place is not None and place[0] == target else target.transport
        transport = open_transport(found, device=target.device)
        session = DeviceSession(
            transport,
            device=target.device,
            owner=target.owner,
            token=target.token,
            limits=limits,
            cache_limit=target.cache_limit,
            identity=target.identity,
            claim=target.claim,
        )
        session.__enter__()
        self._places[target.device] = (target, session.reached)
        self._sessions[target.device] = (target, session)
        return session

    def _close(self, device: str) -> None:
        known = self._sessions.pop(device, None)
        if known is not None:
            known[1].__exit__(None, None, None)

    def _lock(self, device: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(device, threading.Lock())

    def _own(self, sha256: str) -> Path:
        return self._blobs / sha256

    def _readable(self, sha256: str, path: str) -> Path:
        return Path(path) if Path(path).exists() else self._own(sha256)

    def _worker(self, session: DeviceSession, order: Order, python: str) -> Worker:
        """Raises NotAvailableError where the runtime's own interpreter is not installed."""
        bundle = order.bundle
        if bundle is not None:
            readable = self._readable(bundle.sha256, bundle.path)
            bundle = dataclasses.replace(bundle, path=str(readable))
        try:
            return session.worker(python, order.env, bundle, order.job.runtime.runtime)
        except InfraError as error:
            if error.id != "E-DEVICE-PYTHON" or not order.own_python or bundle is not None:
                raise
            runtime = order.job.runtime.runtime
            raise NotAvailableError(
                "E-RUNTIME-MISSING",
                f"{runtime} has no Python here: {error.what}",
                where=order.target.device,
            ) from None


def _ran(session: DeviceSession, worker: Worker, order: Order, into: Path) -> wire.JobResult:
    limit = order.limits.cell
    return session.run(worker, order.job, into, timeout=limit, outputs=order.outputs)


def _trouble(error: Exception, device: str) -> AssayError:
    """What is known of an exception: itself, the hub's own disk, or E-HUB-ERROR with its cause."""
    if isinstance(error, AssayError):
        return error
    if isinstance(error, OSError):
        # The hub's own disk or descriptors: never the device's fault, and it may pass.
        return InfraError("E-HUB-IO", f"hub: {error.strerror or error}", where=device)
    return unexpected(error, device)


def _check_identity(target: Target, environment: dict[str, Any]) -> None:
    """An emulated board says what it is, and so does a library that stands in for an accelerator's.

    The inventory may not call it something else.
    """
    board, delegate = environment.get("board") or {}, environment.get("delegate") or {}
    says = delegate.get("standin") or board.get("class", target.device_class)
    if says != target.device_class:
        raise InfraError(
            "E-DEVICE-IDENTITY",
            f"the inventory calls it {target.device_class!r}, the device says {says!r}",
            where=target.device,
            fix="correct 'class' in the inventory",
            retryable=False,
        )
