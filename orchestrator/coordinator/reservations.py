"""Leases for what asks devices outside a run, so that no running coordinator is disturbed."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_worker.fence import Claim
from orchestrator.devices.checks import Checked, StoppedError
from orchestrator.devices.session import Grant
from orchestrator.errors import AssayError
from orchestrator.matrix.inventory import Device
from orchestrator.queue.fences import Remembered
from orchestrator.store.database import Store
from orchestrator.store.farm import farm_id
from orchestrator.store.owner import this_process
from orchestrator.store.records import Lease
from orchestrator.store.sqlite import DATABASE

HEARTBEAT_S = 5.0

CHECKED = "checked"
"""Key of a device's identity in the store under which the last good check of it is kept."""


class InUseError(Exception):
    """Another coordinator holds the device; the text says which."""


@dataclass(eq=False)
class _Holding:
    """A lease that may be replaced by a later one while it is held."""

    lease: Lease


class Reservations:
    """Leases of the store in ``root``; without a store, tokens that only the devices know.

    A context manager. Thread-safe. ``say``: told a line, on stderr unless given, when
    the store goes on after it was moved or restored. Raises InfraError E-STORE-* when there is a
    store that cannot be used.
    """

    def __init__(self, root: Path, say: Callable[[str], None] | None = None) -> None:
        self._store = Store.open(root) if (root / DATABASE).is_file() else None
        self._say = say or _to_stderr
        self._farm = farm_id(root) if self._store else _own_name()
        self._owner = this_process()
        self._held: list[_Holding] = []
        self._granting = threading.Lock()
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="leases", daemon=True)

    def __enter__(self) -> Reservations:
        if self._store is not None:
            moved = self._store.settle()
            if moved:
                self._say(moved)
            self._heart.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._store is None:
            return
        self._heart.join()
        with self._granting:
            # The store knows better than this object: a thread may have been left behind, or Ctrl-C
            # have come, between a grant and the note of it.
            for lease in self._store.leases():
                if lease.owner == self._owner:
                    self._store.release(Lease(lease.device, lease.token, lease.owner))
        self._store.close()

    @contextmanager
    def of(self, device: Device) -> Iterator[Grant]:
        """Raises InUseError; StoppedError once this has ended; InfraError E-STORE-*."""
        if self._store is None:
            # Two checks at once: the later one's token fences off the earlier.
            yield Grant(self._farm, time.time_ns() // 1_000_000)
            return
        if not any(known.name == device.name for known in self._store.devices()):
            self._store.upsert_device(device.name, device.class_, False, {})
        with self._granting:
            if self._ended.is_set():
                raise StoppedError
            lease = self._store.acquire_lease(device.name, self._owner)
        if lease is None:
            raise InUseError(self._holder(device.name))
        held = _Holding(lease)
        self._held.append(held)

        def catch_up(seen: Remembered) -> tuple[int, Claim]:
            assert self._store is not None
            held.lease, note = self._store.catch_up(held.lease, seen)
            if note:
                self._say(note)
            return held.lease.token, held.lease.shown

        try:
            yield Grant(self._farm, lease.token, lease.shown, catch_up, stored=True)
        finally:
            self._held.remove(held)
            self._store.release(held.lease)

    def seen(self, device: str) -> Mapping[str, Any] | None:
        """What the last good check remembered of the unit; None: never checked."""
        known = self._store.devices() if self._store else []
        found = next((d.identity.get(CHECKED) for d in known if d.name == device), None)
        return found if isinstance(found, dict) else None

    def remember(self, device: Device, checked: Checked) -> None:
        if self._store is None or not checked.identity:
            return
        known = next((d for d in self._store.devices() if d.name == device.name), None)
        # That an accelerator is a stand-in shows only when it runs something.
        emulated = checked.emulated or (known is not None and known.emulated)
        self._store.upsert_device(
            device.name, device.class_, emulated, {CHECKED: dict(checked.identity)}
        )

    def _holder(self, device: str) -> str:
        assert self._store is not None
        for lease in self._store.leases():
            if lease.device == device:
                return f"{lease.owner.host} pid {lease.owner.pid}"
        return "a coordinator that has just left it"

    def _beat(self) -> None:
        assert self._store is not None
        while not self._ended.wait(HEARTBEAT_S):
            try:
                self._store.renew([held.lease for held in list(self._held)])
            except AssayError:
                continue  # a lease that is lost meanwhile is refused by the device


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"assay: {line}\n")


def _own_name() -> str:
    """Known to devices where there is no store: always the same, for they keep every name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"check-{user}@{socket.gethostname()}"
