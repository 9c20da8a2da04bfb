"""The device's own fence: which farm may use it now, and which grants are dead.

``lease.json`` holds ``{owner, token, counter, pids, highest}`` and is only touched under a flock.
``highest`` keeps the highest token ever seen of each owner, so that a coordinator that lost its
lease without knowing it can never come back. Liveness of a holder is "its counter moves", watched
on our own monotonic clock: clocks of devices are often wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Dict, Iterator

from device_worker.errors import WorkerError, storage

State = Dict[str, Any]
_EMPTY: State = {"owner": None, "token": 0, "counter": 0, "pids": [], "highest": {}}
_POLL = 0.2


class Lease:
    """One session's share of the lease of ``owner`` with fencing ``token`` under ``root``."""

    def __init__(self, root: str, owner: str, token: int, observe: float = 10.0) -> None:
        self._file = os.path.join(root, "lease.json")
        self._lock = os.path.join(root, "lease.lock")
        self._owner, self._token, self._observe = owner, token, observe
        self._pid = os.getpid()

    def acquire(self) -> bool:
        """Take or join the lease; True when it is fresh (not shared with a running session).

        Raises WorkerError E-LEASE-STALE (kind stale): a higher token of this owner was seen;
        E-LEASE-HELD (infra_error): another owner holds the device and is alive.
        """
        seen, give_up = None, time.monotonic() + self._observe
        while True:
            with self._locked() as state:
                self._refuse_stale(state)
                holder = state["owner"]
                if holder is None or holder == self._owner:
                    return self._take(state)
                now = (holder, state["token"], state["counter"])
                if seen is not None and now != seen:
                    raise self._held("by %r, which is alive" % holder)
                if time.monotonic() >= give_up:
                    return self._take(state)
            seen = now
            time.sleep(min(_POLL, self._observe))

    def beat(self) -> int:
        """Raise the counter and return it. Raises WorkerError E-LEASE-STALE when fenced off."""
        with self._locked() as state:
            self._refuse_stale(state)
            self._refuse_lost(state)
            state["counter"] += 1
            self._write(state, durable=False)
            return int(state["counter"])

    def check(self) -> None:
        """Raises WorkerError E-LEASE-STALE unless the lease is still ours."""
        with self._locked() as state:
            self._refuse_stale(state)
            self._refuse_lost(state)

    def release(self) -> None:
        """Leave; the last session of the lease frees the device. A lost lease is left alone."""
        with self._locked() as state:
            if (state["owner"], state["token"]) != (self._owner, self._token):
                return
            state["pids"] = [pid for pid in state["pids"] if pid != self._pid]
            if not state["pids"]:
                state["owner"] = None
            self._write(state, durable=True)

    def _take(self, state: State) -> bool:
        fresh = (state["owner"], state["token"]) != (self._owner, self._token)
        pids = [] if fresh else [pid for pid in state["pids"] if pid != self._pid]
        state.update(owner=self._owner, token=self._token, pids=[*pids, self._pid])
        state["highest"][self._owner] = self._token
        state["counter"] += 1
        self._write(state, durable=True)
        return fresh

    def _refuse_stale(self, state: State) -> None:
        highest = state["highest"].get(self._owner, self._token)
        if highest > self._token:
            raise self._stale(
                "token %d of %r was followed by %d"
                % (
                    self._token,
                    self._owner,
                    highest,
                )
            )

    def _refuse_lost(self, state: State) -> None:
        if (state["owner"], state["token"]) != (self._owner, self._token):
            raise self._stale("the lease of %r passed to %r" % (self._owner, state["owner"]))

    @staticmethod
    def _stale(what: str) -> WorkerError:
        return WorkerError("stale", "E-LEASE-STALE", what, "ask the queue for a new lease")

    @staticmethod
    def _held(how: str) -> WorkerError:
        return WorkerError(
            "infra_error", "E-LEASE-HELD", "device is held %s" % how, "wait for it or use another"
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[State]:
        with storage("opening the device lease"):
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._flock(fd)
            yield self._read()
        finally:
            os.close(fd)

    def _flock(self, fd: int) -> None:
        # A stopped process may sit on the lock for ever: bounded wait instead of a blocking call.
        give_up = time.monotonic() + max(self._observe, 1.0)
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise self._held("through a lock that is never let go") from None
                time.sleep(0.01)

    def _read(self) -> State:
        with storage("reading the device lease"):
            try:
                with open(self._file, encoding="utf-8") as file:
                    text = file.read()
            except FileNotFoundError:
                text = None
        if text is None:
            return json.loads(json.dumps(_EMPTY))  # type: ignore[no-any-return]  # a deep copy
        try:
            state = json.loads(text)
            if set(state) != set(_EMPTY):
                raise ValueError("unexpected fields")
        except (ValueError, TypeError) as error:
            # Starting afresh would forget the highest tokens, and with them the fence.
            raise WorkerError(
                "infra_error",
                "E-LEASE-CORRUPT",
                "%s is damaged: %s" % (self._file, error),
                "delete it once no farm uses this device",
            ) from error
        return state  # type: ignore[no-any-return]  # checked to be a State just above

    def _write(self, state: State, *, durable: bool) -> None:
        with storage("writing the device lease"):
            draft = "%s.%d" % (self._file, self._pid)
            with open(draft, "w", encoding="utf-8") as file:
                json.dump(state, file)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(draft, self._file)
