"""Checking live devices under the store's leases, so that no running coordinator is disturbed."""

from __future__ import annotations

import getpass
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from device_worker.fence import Claim
from orchestrator.devices.bundle import find_bundle
from orchestrator.devices.checks import Checked, StoppedError, Subject, address, check
from orchestrator.devices.extras import holder, read_extras
from orchestrator.devices.facts import read_facts
from orchestrator.devices.health import HELD, Health, Item, State, bad, failed, unknown
from orchestrator.devices.rounds import side_by_side
from orchestrator.devices.session import Grant, Limits
from orchestrator.errors import AssayError
from orchestrator.matrix.device_class import DeviceClass
from orchestrator.matrix.inventory import Device, bundle_name
from orchestrator.queue.fences import Remembered
from orchestrator.store.database import Store
from orchestrator.store.farm import farm_id
from orchestrator.store.owner import this_process
from orchestrator.store.records import Lease
from orchestrator.store.sqlite import DATABASE
from orchestrator.transports import open_transport

HEARTBEAT_S = 5.0
LIMIT_S = 900.0
"""Longest one device is waited for."""
FACTS_S = 60.0
WORKER_S = 120.0
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


def check_devices(
    devices: Sequence[Device],
    classes: Sequence[DeviceClass],
    root: Path,
    *,
    contract: bool = True,
    accept: bool = False,
    limit_s: float = LIMIT_S,
    hub: str | None = None,
) -> Generator[Health]:
    """The health of each device as it is known, several at once.

    ``hub``: the name of the hub that this machine is; devices of other hubs are not looked for, as
    what has their address here may be something else.
    ``accept``: what they show of themselves now is right, whatever the store remembers. Leaving
    early stops the checks and gives the leases back. Raises InfraError E-STORE-*.
    """
    stop, by_name = threading.Event(), {device.name: device for device in devices}
    with Reservations(root) as reservations:

        def work(name: str) -> Health:
            device = by_name[name]
            if device.hub not in (None, hub):
                what = f"only its hub {device.hub} reaches it"
                mend = f"run this command there, with --hub {device.hub}"
                return _one(device, unknown("reachable", what, mend))
            try:
                with reservations.of(device) as grant:
                    return _check(device, grant)
            except InUseError as error:
                return Health(name, device.class_, in_use=str(error))
            except StoppedError:
                return Health(name, device.class_, in_use="nobody: the check was interrupted")
            except AssayError as error:
                return _one(device, failed("check", error, name))
            except Exception as error:  # noqa: BLE001  a bug must not take the other devices along
                what = f"internal error: {type(error).__name__}: {error}"
                return _one(device, bad("check", what, "please report it", "E-BUG"))

        def _check(device: Device, grant: Grant) -> Health:
            assert device.profile is not None, "the loader gives every device one"
            seen = None if accept else reservations.seen(device.name)
            subject = Subject(device, device.profile, grant, seen, classes, contract)
            checked = check(subject, stop)
            if not _stranger(checked.health):
                reservations.remember(device, checked)
            return checked.health

        def late(name: str) -> Health:
            what = f"not done within {limit_s:g} s"
            mend = "see what hangs there; --timeout gives it longer"
            return _one(by_name[name], bad("check", what, mend, "E-DEADLINE"))

        for _, health in side_by_side(list(by_name), work, late, limit_s=limit_s, stop=stop):
            yield health


def facts_document(device: Device, root: Path) -> dict[str, Any]:
    """The JSON document ``assay.facts/1``: what device and worker say, with the source of each.

    Raises InfraError when the device cannot be reached or asked.
    """
    assert device.profile is not None, "the loader gives every device one"
    document: dict[str, Any] = {
        "schema": "assay.facts/1",
        "name": device.name,
        "class": device.class_,
        "described_by": device.profile.name,
        "address": address(device),
    }
    with Reservations(root) as reservations:
        try:
            with reservations.of(device) as grant:
                return document | _asked(device, device.profile, grant)
        except InUseError as error:
            return document | _asked(device, device.profile, str(error))


def _asked(device: Device, profile: DeviceClass, grant: Grant | str) -> dict[str, Any]:
    """``grant``: or by whom the device is in use; then no worker is started on it."""
    transport = open_transport(device.transport, device=device.name)
    leased = grant if isinstance(grant, Grant) else Grant("", 0)
    limits = Limits(WORKER_S, WORKER_S)
    with leased.session(transport, device=device.name, limits=limits) as session:
        facts = read_facts(transport, profile.facts, timeout=FACTS_S)
        workers: dict[str, Any] = {}
        if isinstance(grant, Grant):
            extras = read_extras(transport, timeout=FACTS_S)
            other = holder(transport, grant.owner, extras, timeout=FACTS_S)
            grant = grant if other is None else other
        for python in dict.fromkeys(device.python.values()):
            if isinstance(grant, str):
                workers[python] = {"error": f"not asked: in use by {grant}", "id": None}
                continue
            try:
                name = bundle_name(python)
                bundle = find_bundle(name) if name else None
                worker = session.worker(python, device.env, bundle)
                workers[python] = worker.ask("facts", timeout=WORKER_S)["environment"]
            except AssayError as error:
                workers[python] = {"error": error.what, "id": error.id}
                if error.id in HELD:
                    grant = "another farm"
    return {
        "facts": {fact.name: {"value": fact.value, "source": fact.source} for fact in facts.facts},
        "silent": list(facts.silent),
        "workers": workers,
    }


def _stranger(health: Health) -> bool:
    """Whether something says that this is not the unit that is meant, or not all is known."""
    telling = {"same unit", "identity", "board file", "class", "reachable", "facts", "still there"}
    return any(i.name in telling and i.state is State.BAD for i in health.items)


def _one(device: Device, item: Item) -> Health:
    return replace(Health(device.name, device.class_), items=(item,))


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"assay: {line}\n")


def _own_name() -> str:
    """Known to devices where there is no store: always the same, for they keep every name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"check-{user}@{socket.gethostname()}"
