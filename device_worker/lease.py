"""The device's own fence: which farm may use it now, and which grants are dead.

``lease.json`` says who holds the device: ``{owner, token, counter, pids, highest}``. Its form is
that of every worker before, so that older ones stay fenced by ``highest``, the highest token of
each owner. ``fences.json`` holds what `fence` remembers of each owner, so that a coordinator that
lost its lease without knowing it can never come back. Both are only touched under a flock. Liveness
of a holder is "its counter moves", watched on our own monotonic clock: those of devices are often
wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Dict, Iterator, Optional

from device_worker import fence, wire
from device_worker.errors import WorkerError, storage
from device_worker.fence import NO_STORE, Claim, Memory

State = Dict[str, Any]
_EMPTY: State = {"owner": None, "token": 0, "counter": 0, "pids": [], "highest": {}}
_POLL = 0.2


class Lease:
    """One session's share of the lease of ``owner`` with fencing ``token`` under ``root``."""

    def __init__(
        self, root: str, owner: str, token: int, observe: float = 10.0, claim: Claim = NO_STORE
    ) -> None:
        self._file = os.path.join(root, "lease.json")
        self._fences = os.path.join(root, "fences.json")
        self._lock = os.path.join(root, "lease.lock")
        self._owner, self._token, self._observe = owner, token, observe
        self._claim = claim
        self._pid = os.getpid()

    def acquire(self) -> bool:
        """Take or join the lease; True when it is fresh (not shared with a running session).

        Raises WorkerError E-LEASE-STALE (kind stale): the claim does not go on from what is
        ``remembered`` of this owner; E-LEASE-HELD (infra_error): somebody else holds the device and
        is alive, the same farm under the name ``holder`` perhaps.
        """
        seen, give_up = None, time.monotonic() + self._observe
        while True:
            with self._locked() as state:
                memory = self._memory(state)
                if not fence.admits(memory, self._claim, self._token):
                    raise self._refused(memory)
                if self._may_take(state, memory):
                    return self._take(state, memory)
                now = (state["owner"], state["token"], state["counter"])
                if seen is not None and now != seen:
                    raise self._held("by %s, which is alive", state, memory)
                if time.monotonic() >= give_up:
                    return self._take(state, memory)
            seen = now
            time.sleep(min(_POLL, self._observe))

    def beat(self) -> int:
        """Raise the counter and return it. Raises WorkerError E-LEASE-STALE when fenced off."""
        with self._locked() as state:
            self._refuse_lost(state)
            state["counter"] += 1
            self._write(self._file, state, durable=False)
            return int(state["counter"])

    def check(self) -> None:
        """Raises WorkerError E-LEASE-STALE unless the lease is still ours."""
        with self._locked() as state:
            self._refuse_lost(state)

    def release(self) -> None:
        """Leave; the last session of the lease frees the device. A lost lease is left alone."""
        with self._locked() as state:
            if not self._ours(state, self._memory(state)):
                return
            state["pids"] = [pid for pid in state["pids"] if pid != self._pid]
            if not state["pids"]:
                state["owner"] = None
            self._write(self._file, state, durable=True)

    def _ours(self, state: State, memory: Optional[Memory]) -> bool:
        held = (state["owner"], state["token"]) == (self._owner, self._token)
        return held and memory is not None and memory.granted(self._claim, self._token)

    def _may_take(self, state: State, memory: Optional[Memory]) -> bool:
        """Free, or held by a grant that its own store has ended: it granted the name anew.

        Another name of the device, or another incarnation, knows nothing of the holder's end.
        """
        if state["owner"] is None:
            return True
        if state["owner"] != self._owner or memory is None:
            return False
        ended = (memory.incarnation, memory.device, memory.token)
        return ended == (self._claim.incarnation, self._claim.device, state["token"])

    def _take(self, state: State, memory: Optional[Memory]) -> bool:
        fresh = not self._ours(state, memory)
        pids = [] if fresh else [pid for pid in state["pids"] if pid != self._pid]
        highest = max(state["highest"].get(self._owner, 0), self._token)
        fences = self._remembered()
        fences[self._owner] = wire.dump(fence.remembering(self._claim, self._token, highest))
        # The fence first: a crash in between leaves a holder that nobody is any more.
        if fresh:
            self._write(self._fences, fences, durable=True)
        state.update(owner=self._owner, token=self._token, pids=[*pids, self._pid])
        state["highest"][self._owner] = highest
        state["counter"] += 1
        self._write(self._file, state, durable=True)
        return fresh

    def _memory(self, state: State) -> Optional[Memory]:
        """What is remembered of this owner. An older worker may have been here since."""
        highest, told = state["highest"].get(self._owner), self._remembered().get(self._owner)
        if told is not None:
            memory = self._loaded(told)
            # Between the two writes of `_take` the fence is ahead of the lease.
            if highest is None or highest <= memory.highest:
                return memory
        return None if highest is None else fence.of_older_worker(highest)

    def _loaded(self, told: Any) -> Memory:
        try:
            return wire.load(Memory, told)
        except wire.WireError as error:
            raise self._damaged(self._fences, error) from error

    def _refuse_lost(self, state: State) -> None:
        memory = self._memory(state)
        if self._ours(state, memory):
            return
        if memory is not None and not memory.granted(self._claim, self._token):
            # No memory for the coordinator to catch up with: it had the lease, and lost it.
            what = self._refused(memory).what
            raise WorkerError("stale", "E-LEASE-STALE", what, "ask the queue for a new lease")
        what = "the lease of %r passed to %r" % (self._owner, state["owner"])
        raise WorkerError("stale", "E-LEASE-STALE", what, "ask the queue for a new lease")

    def _refused(self, memory: Optional[Memory]) -> WorkerError:
        assert memory is not None, "nothing remembered refuses nobody"
        what = "token %d of %r was followed by %d" % (self._token, self._owner, memory.token)
        if memory.incarnation != self._claim.incarnation:
            what += " of another incarnation of the store"
        more = {"remembered": memory.told()}
        return WorkerError("stale", "E-LEASE-STALE", what, "ask the queue for a new lease", more)

    def _held(
        self, how: str, state: Optional[State] = None, memory: Optional[Memory] = None
    ) -> WorkerError:
        more = {}
        if state is not None:
            who = repr(state["owner"])
            if state["owner"] == self._owner and memory is not None and memory.device:
                who += " as %r" % memory.device
                if memory.device != self._claim.device:
                    more = {"holder": memory.device}
            how = how % who
        what, fix = "device is held %s" % how, "wait for it or use another"
        return WorkerError("infra_error", "E-LEASE-HELD", what, fix, more)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[State]:
        with storage("opening the device lease"):
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._flock(fd)
            yield self._state()
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

    def _state(self) -> State:
        state = self._read(self._file)
        if state is None:
            return json.loads(json.dumps(_EMPTY))  # type: ignore[no-any-return]  # a deep copy
        if set(state) != set(_EMPTY):
            raise self._damaged(self._file, ValueError("unexpected fields"))
        kinds = {"token": int, "counter": int, "pids": list, "highest": dict}
        wrong = [name for name, kind in kinds.items() if not isinstance(state[name], kind)]
        if wrong or not all(isinstance(v, int) for v in state["highest"].values()):
            raise self._damaged(self._file, ValueError("%s is none" % (wrong or ["highest"])[0]))
        return state

    def _remembered(self) -> Dict[str, Any]:
        return self._read(self._fences) or {}

    def _read(self, path: str) -> Optional[Dict[str, Any]]:
        with storage("reading the device lease"):
            try:
                with open(path, "rb") as file:
                    data = file.read()
            except FileNotFoundError:
                return None
        try:
            found = json.loads(data.decode("utf-8"))
            if not isinstance(found, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            raise self._damaged(path, error) from error
        return found

    @staticmethod
    def _damaged(path: str, error: Exception) -> WorkerError:
        # Starting afresh would forget the highest tokens, and with them the fence.
        what = "%s is damaged: %s" % (path, error)
        fix = "delete it once no farm uses this device"
        return WorkerError("infra_error", "E-LEASE-CORRUPT", what, fix)

    def _write(self, path: str, data: Dict[str, Any], *, durable: bool) -> None:
        with storage("writing the device lease"):
            draft = "%s.%d" % (path, self._pid)
            with open(draft, "w", encoding="utf-8") as file:
                json.dump(data, file)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(draft, path)
