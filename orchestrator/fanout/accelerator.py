"""An accelerator that failed: woken if the inventory says how, and believed only on evidence.

A USB unit that was unplugged, or that a killed process left wedged, may answer again - or answer
something else. Before it is used again it repeats a job that it has done before (the *golden* job)
and must give the same bytes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from device_worker import wire
from orchestrator.devices.session import Limits
from orchestrator.errors import AssayError, InfraError, NotAvailableError
from orchestrator.fanout.hub_job import Order
from orchestrator.results import files, npy
from orchestrator.results.finished import Failure

GOLDEN_SAMPLES = 8
RESET_S = 60.0
"""Longest a reset command may take."""
ANSWER_S = 15.0
"""How long a unit may take to come back: a USB port is switched on, firmware is loaded."""
GOLDEN_S = 120.0
"""Deadline of one golden job."""
_PAUSE_S = 1.0
_CPU = "CPUExecutionProvider"
_DOUBTFUL = frozenset(
    {
        "E-ACCELERATOR",
        "E-ACCELERATOR-RESET",
        "E-CELL-TIMEOUT",
        "E-SILENCE",
        "E-WORKER-DIED",
        "E-WORKER-KILLED",
    }
)

Rehearse = Callable[[Order], tuple[bytes, int]]
"""Runs an order of which nothing is kept: the sample_hashes file (.npy), repeats that differed."""


@dataclass(frozen=True)
class Golden:
    """An order, and what it gave: uint8 [n, 32], sha256 of each of its first n samples' outputs."""

    order: Order
    hashes: bytes


def used(job: wire.Job) -> str | None:
    """The accelerator that a job asks for by its delegate or first provider, None: the CPU."""
    if job.runtime.delegate is not None:
        return job.runtime.delegate.name
    first = job.runtime.providers[0] if job.runtime.providers else _CPU
    return None if first == _CPU else first


def doubtful(job: wire.Job, failure: Failure) -> bool:
    """Whether the failure of an accelerated job may be the accelerator's."""
    return used(job) is not None and failure.id in _DOUBTFUL


def golden_order(order: Order, limit: int = GOLDEN_SAMPLES) -> Order:
    """The order's first samples once and once again, under an attempt's name of its own."""
    job = replace(
        order.job,
        attempt=f"golden-{uuid.uuid4().hex[:12]}",
        samples=min(order.job.samples, limit),
        repeat=2,
        warmup=0,
        soak=None,
        power=None,
    )
    return replace(order, job=job, limits=Limits(GOLDEN_S, min(order.limits.silence, GOLDEN_S)))


def wrong(expected: bytes | None, answer: bytes, repeats_differed: int) -> str | None:
    """What is wrong with a golden job's answer, None if nothing.

    ``expected``, ``answer``: sample_hashes as .npy; ``expected`` may hold more samples, and is None
    when nothing is known of what is right: then answers need only repeat.
    """
    if repeats_differed:
        return "it does not give the same answer twice"
    if expected is None:
        return None
    ours, theirs = _rows(expected), _rows(answer)
    count = min(len(ours), len(theirs))
    if not count or ours.shape[1] != theirs.shape[1]:
        return "it gives no answers to compare"
    differing = int((ours[:count] != theirs[:count]).any(axis=1).sum())
    return (
        f"{differing} of {count} answers differ from those before its failure"
        if differing
        else None
    )


def reset(argv: tuple[str, ...], where: str, timeout: float = RESET_S) -> None:
    """Run the inventory's reset command on this hub. Raises InfraError E-ACCELERATOR-RESET."""

    def failed(what: str) -> InfraError:
        return InfraError(
            "E-ACCELERATOR-RESET",
            f"the reset command {argv[0]!r} {what}",
            where=where,
            fix="correct 'reset' of this device in the inventory",
        )

    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise failed(f"cannot be started: {error.strerror or error}") from None
    try:
        _, told = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise failed(f"was not done within {timeout:g} s") from None
    if process.returncode:
        last = told.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise failed(f"ended with {process.returncode}: {last or 'no message'}")


class Accelerator:
    """What a hub knows of one device's accelerator. Used under that device's lock."""

    def __init__(self) -> None:
        self._golden: dict[str, Golden] = {}
        self._doubt: str | None = None
        self._condemned: str | None = None

    def worked(self, order: Order, sample_hashes: bytes) -> None:
        """Remember a job that came out well: the next golden one."""
        name = used(order.job)
        if name is not None and sample_hashes:
            self._golden[name] = Golden(golden_order(order), sample_hashes)

    def failed(self, order: Order, failure: Failure) -> None:
        if doubtful(order.job, failure):
            self._doubt = failure.id

    def ready(self, order: Order, rehearse: Rehearse) -> str | None:
        """Make sure that the accelerator may be believed before the order is carried out.

        Returns what was done, None when there was no reason to do anything. Raises InfraError
        E-ACCELERATOR-WEDGED, E-ACCELERATOR-RESET; whatever else the order itself would meet.
        """
        name = used(order.job)
        if name is None or (self._doubt is None and self._condemned is None):
            return None
        where = order.target.device
        if self._condemned is not None:
            raise _wedged(where, name, self._condemned)
        if order.reset:
            reset(order.reset, where)
        known = self._golden.get(name)
        problem = wrong(
            known.hashes if known else None,
            *_patiently(rehearse, known.order if known else golden_order(order), where, name),
        )
        if problem is not None:
            self._condemned = problem
            raise _wedged(where, name, problem)
        done = "after a reset" if order.reset else "by itself"
        proof = "gave its earlier answers" if known else "repeated its answers"
        found = f"{name} came back {done} after {self._doubt} and {proof}"
        self._doubt = None
        return found


def _patiently(rehearse: Rehearse, order: Order, where: str, name: str) -> tuple[bytes, int]:
    """The golden job's answer. A unit that is not there yet is asked again for ANSWER_S."""
    give_up = time.monotonic() + ANSWER_S
    while True:
        try:
            return rehearse(order)
        except AssayError as error:
            absent = isinstance(error, NotAvailableError) and error.id == "E-DELEGATE-DEVICE"
            if not absent and not isinstance(error, InfraError):
                raise
            if not (absent or error.id == "E-ACCELERATOR") or time.monotonic() >= give_up:
                raise _wedged(where, name, error.what) from error
        time.sleep(_PAUSE_S)


def _wedged(where: str, name: str, why: str) -> InfraError:
    return InfraError(
        "E-ACCELERATOR-WEDGED",
        f"{name} failed and cannot be used again: {why}",
        where=where,
        fix="power-cycle it, or set 'reset' of this device in the inventory",
        retryable=False,
    )


def _rows(data: bytes) -> NDArray[np.uint8]:
    loaded: NDArray[np.uint8] = npy.read(data, "sample_hashes", dtype="uint8")
    if loaded.ndim != 2:
        files.refuse("E-RESULT-SHAPE", f"sample_hashes has shape {list(loaded.shape)}")
    return loaded
