"""The checks of one live device, in the order in which trouble in one explains the next.

Each step has a deadline and raises nothing: what goes wrong is an item. Nothing heavier than a look
at the device is done before its own lease is held, so that another farm's run is not disturbed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from device_worker import wire
from device_worker.telemetry.plausible import Doubts, believed, numbers
from orchestrator.devices import findings, smoke
from orchestrator.devices.bundle import find_bundle
from orchestrator.devices.facts import Facts, read_facts
from orchestrator.devices.findings import Extras, Values
from orchestrator.devices.health import (
    HELD,
    REFUSED,
    Health,
    Item,
    bad,
    failed,
    nothing,
    ok,
    unknown,
)
from orchestrator.devices.sensing import read_sensors
from orchestrator.devices.session import Grant, Limits
from orchestrator.devices.shell_facts import board_of, holder, read_extras
from orchestrator.devices.worker import Worker
from orchestrator.errors import AssayError, InfraError
from orchestrator.matrix.device_class import DeviceClass, SourceSpec, recognise
from orchestrator.matrix.environment import emulated
from orchestrator.matrix.inventory import Device, bundle_name
from orchestrator.transports import open_transport
from orchestrator.transports.base import Transport
from orchestrator.transports.contract import CHECKS, ContractError, run_check

T = TypeVar("T")

PING_S = 20.0
FACTS_S = 40.0
ASK_S = 120.0
"""An answer of the worker: an import or a delegate's firmware may be behind it."""
CONTRACT_S = 300.0
"""After this long no further check of the contract is begun."""
LIMITS = Limits(cell=240.0, silence=60.0)

_LEFT = "worker, runtimes and transport were left alone"
_TFLITE = ("litert", "tflite-runtime")
_DOUBT_LINK = frozenset({"E-LINK", "E-DEADLINE", "E-SILENCE", "E-WORKER-DIED"})


class StoppedError(Exception):
    """The operator wants no further steps."""


class GoneError(Exception):
    """The device does not answer any more: nothing else can be learned."""


@dataclass(frozen=True)
class Subject:
    """What a check of one device needs to know.

    ``grant``: the lease to take on the device. ``seen``: its `findings.identity_of`, as the store
    knows it. ``classes``: all device classes it might be. ``contract``: check the transport too.
    """

    device: Device
    profile: DeviceClass
    grant: Grant
    seen: Mapping[str, Any] | None = None
    classes: Sequence[DeviceClass] = ()
    contract: bool = True


@dataclass(frozen=True)
class Checked:
    """``identity``: what to remember of the unit; empty where nothing is known of it."""

    health: Health
    identity: Mapping[str, Any]
    emulated: bool


def check(subject: Subject, stop: threading.Event) -> Checked:
    """Look at everything. Raises StoppedError once ``stop`` is set."""
    begin, examiner = time.monotonic(), _Examiner(subject, stop)
    items = list(examiner.items())
    health = Health(
        subject.device.name,
        subject.device.class_,
        tuple(items),
        seconds=time.monotonic() - begin,
    )
    return Checked(health, findings.identity_of(examiner.facts), examiner.emulated)


def address(device: Device) -> str:
    """How a device is reached, for people."""
    match device.transport:
        case t if t.type == "ssh":
            user = f"{t.user}@" if t.user else ""
            return f"ssh {user}{t.host}" + (f":{t.port}" if t.port else "")
        case t if t.type == "adb":
            return f"adb {t.serial}"
        case t:
            return f"{t.type} {t.root}"


class _Examiner:
    def __init__(self, subject: Subject, stop: threading.Event) -> None:
        self._subject, self._stop = subject, stop
        self._device, self._name = subject.device, subject.device.name
        self._transport: Transport = open_transport(self._device.transport, device=self._name)
        self._session = subject.grant.session(
            self._transport,
            device=self._name,
            limits=LIMITS,
            cache_limit=self._device.cache_limit,
        )
        self._extras = Extras()
        self._workers: dict[str, Worker] = {}
        self._environments: dict[str, Mapping[str, Any]] = {}
        self._values: dict[str, float | None] = {}
        self._held = False
        self.facts = Facts(())
        self.emulated = False

    def items(self) -> Iterator[Item]:
        try:
            self._session.__enter__()
        except AssayError as error:
            yield failed("reachable", error, self._name)
            return
        try:
            yield from self._opened()
        except GoneError as gone:
            yield bad("still there", f"it does not answer any more: {gone}", error="E-LINK")
        finally:
            self._session.__exit__(None, None, None)

    def _opened(self) -> Iterator[Item]:
        yield from self._reachable()
        yield from self._said()
        yield from self._lease_and_pythons()
        yield from self._sensors()
        if not self._held:
            yield from self._runtimes()
            yield from self._delegates()
            yield from self._contract()

    def _reachable(self) -> Iterator[Item]:
        trip, trouble = self._step("reachable", lambda: self._transport.ping(timeout=PING_S))
        if trip is not None:
            yield ok("reachable", f"{self._transport.address}, round trip {trip * 1000:.1f} ms")
        yield from trouble

    def _said(self) -> Iterator[Item]:
        """What facts and shell tell, and what that says of its identity."""
        device, profile = self._device, self._subject.profile
        facts, trouble = self._step(
            "facts", lambda: read_facts(self._transport, profile.facts, timeout=FACTS_S)
        )
        yield from trouble
        extras, trouble = self._step(
            "shell", lambda: read_extras(self._transport, timeout=FACTS_S / 2)
        )
        yield from trouble
        self.facts, self._extras = facts or self.facts, extras or self._extras
        board = board_of(self._extras)
        self.emulated = isinstance(board, dict) and bool(board.get("emulated"))
        yield findings.recorded(device, self.facts)
        yield findings.same_unit(self._subject.seen, self.facts)
        said = findings.board(device, board)
        if said is not None:
            yield said
        machine = self.facts.get("machine")
        fitting = recognise(
            self.facts.values(), str(machine) if machine else None, self._subject.classes
        )
        yield findings.recognised(device, profile, self.facts, fitting)
        yield findings.clock(self._extras.clock_s)
        bundles = len({python for python in device.python.values() if bundle_name(python)})
        lacking = max(0, bundles - self._extras.bundles)
        yield findings.disk(self._extras.free, lacking, str(self._transport.root()))

    def _lease_and_pythons(self) -> Iterator[Item]:
        """The first worker that starts takes the lease on the device."""
        look = partial(
            holder, self._transport, self._subject.grant.owner, self._extras, timeout=FACTS_S
        )
        other, pythons = self._step("lease", look)
        if other is not None:
            self._held = True
            what = f"held by {other!r}, which is alive: {_LEFT}"
            yield unknown("lease", what, "wait for it or use another", "E-LEASE-HELD")
            return
        for python in dict.fromkeys(self._device.python.values()):
            started, trouble = self._step(f"python {python}", partial(self._start, python))
            if started is not None:
                version = f"{started.get('python')}, {_numpy(started)}"
                make = ok if started.get("numpy") else _without_numpy
                pythons.append(make(f"python {python}", version))
            elif any(item.error in HELD | REFUSED for item in trouble):
                self._held = True
                what = f"{trouble[0].finding}: {_LEFT}"
                yield replace(trouble[0], name="lease", finding=what)
                return
            else:
                pythons += trouble
        yield self._lease()
        yield from pythons

    def _lease(self) -> Item:
        """What is known of it once every Python was tried."""
        if not self._workers:
            return unknown("lease", "nobody holds it; no worker started that could take it")
        taken = "taken for this check, given back after it"
        if self._subject.grant.stored:
            return ok("lease", taken)
        return ok("lease", f"{taken}; without a store, so a farm's own lease was not tried")

    def _start(self, python: str) -> Mapping[str, Any]:
        """The environment under an interpreter. The worker takes the lease before its answer."""
        worker = self._worker(python)
        environment: Mapping[str, Any] = worker.ask("facts", timeout=ASK_S)["environment"]
        self._workers[python], self._environments[python] = worker, environment
        self.emulated = self.emulated or emulated(environment)
        return environment

    def _worker(self, python: str) -> Worker:
        name = bundle_name(python)
        bundle = find_bundle(name) if name else None
        return self._session.worker(python, self._device.env, bundle)

    def _sensors(self) -> Iterator[Item]:
        profile = self._subject.profile
        readings: dict[str, Values] = {}
        doubts: Doubts = {}
        worker = next(iter(self._workers.values()), None)
        for source in profile.telemetry:
            read, trouble = self._step(
                "sensors", partial(self._read, source, worker), quiet=worker is None
            )
            values, unclear = read or ({}, {})
            readings[" ".join(source.command) or ", ".join(source.path)] = values
            doubts |= unclear
            if trouble:
                yield trouble[0]
                break
        merged, more = believed(findings.merged(readings))
        self._values, doubts = numbers(merged), doubts | more
        yield findings.sensors(readings, profile)
        yield from findings.doubtful(doubts)
        yield findings.governor(self.facts, profile)
        yield findings.throttling(self.facts, self._values, profile)
        yield findings.temperature(self._values, profile, doubts)

    def _read(self, source: SourceSpec, worker: Worker | None) -> tuple[Values, Doubts]:
        """As a run would, by the worker; without one by the shell, which knows no streams."""
        if worker is not None:
            return read_sensors(worker, [source.source()], timeout=ASK_S)
        if source.stream:
            return {}, {}
        told = read_facts(self._transport, [source], timeout=FACTS_S)
        return numbers(told.values()), told.doubts

    def _runtimes(self) -> Iterator[Item]:
        """Those that the class expects, the inventory names, or a Python has."""
        named = [name for name in self._device.python if name != "default"]
        installed = [n for e in self._environments.values() for n in e.get("runtimes") or ()]
        for name in dict.fromkeys([*self._subject.profile.runtimes, *named, *installed]):
            python = self._device.interpreter(name)
            if python is None:
                if name in self._subject.profile.runtimes:
                    yield bad(
                        f"runtime {name}",
                        "its class has it, the inventory names no Python for it",
                        "add it under `python`",
                        "E-RUNTIME-MISSING",
                    )
                continue
            environment = self._environments.get(python)
            if environment is None:
                yield unknown(f"runtime {name}", f"no worker under {python}")
                continue
            found = findings.runtime(name, python, environment)
            yield found
            if found.state == "ok":
                yield from self._smoke(name, python)

    def _smoke(self, name: str, python: str) -> Iterator[Item]:
        def infer() -> smoke.Smoke:
            worker = self._worker(python)
            return smoke.infer(self._session, worker, name, timeout=LIMITS.cell)

        done, trouble = self._step(f"inference {name}", infer)
        if done is not None and done.got is not None:
            fix = "its kernels are wrong: find out whether the unit or the build is defective"
            what = f"wrong: {done.got[0]} instead of {smoke.expected()[0]}"
            yield bad(f"inference {name}", what, fix)
        elif done is not None:
            where = ", ".join(done.backend.nodes) or done.backend.planned
            yield ok(f"inference {name}", f"right, on {where}")
        yield from trouble

    def _delegates(self) -> Iterator[Item]:
        device = self._device
        for name in self._subject.profile.delegates:
            if name not in device.delegates:
                fix = "name its library under `delegates`"
                yield bad(f"delegate {name}", "its class has it, the inventory not", fix)
        for name, spec in device.delegates.items():
            served = [r for r in _TFLITE if self._has(r)]
            if not served:
                yield unknown(f"delegate {name}", "no TFLite runtime works here to load it")
                continue
            python = device.interpreter(served[0])
            assert python is not None
            asked = wire.Delegate(name, spec.library, dict(spec.options), spec.sha256)
            told, trouble = self._step(
                f"delegate {name}", partial(self._probe, python, served[0], asked)
            )
            if told is not None:
                yield findings.delegate(name, served[0], device, told)
            yield from trouble
        if not device.delegates and not self._subject.profile.delegates:
            yield nothing("delegates", "none named")

    def _probe(self, python: str, runtime: str, delegate: wire.Delegate) -> Mapping[str, Any]:
        worker = self._worker(python)
        asked = wire.dump(delegate)
        reply = worker.ask("probe", runtime=runtime, delegate=asked, timeout=ASK_S)
        told: Mapping[str, Any] = reply["delegate"]
        return told

    def _has(self, runtime: str) -> bool:
        environment = self._environments.get(self._device.interpreter(runtime) or "", {})
        return runtime in (environment.get("runtimes") or {})

    def _contract(self) -> Iterator[Item]:
        if not self._subject.contract:
            return
        end, passed = time.monotonic() + CONTRACT_S, 0
        wrong: list[str] = []
        for item in CHECKS:
            if self._stop.is_set():
                raise StoppedError
            if time.monotonic() > end:
                break
            try:
                run_check(item, self._transport)
                passed += 1
            except (ContractError, AssayError, OSError, ValueError, LookupError) as error:
                wrong.append(f"{item.name}: {' '.join(str(error).split())[:160]}")
                self._still_there(error)
        if wrong:
            more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            what = f"{len(wrong)} of {len(CHECKS)} checks fail: {wrong[0]}{more}"
            fix = "results over this link cannot be relied on: see docs/guides/bring-up.md"
            yield bad("transport contract", what, fix)
        elif passed < len(CHECKS):
            yield unknown("transport contract", f"{passed} of {len(CHECKS)} in {CONTRACT_S:g} s")
        else:
            yield ok("transport contract", f"{passed} checks hold")

    def _step(
        self, name: str, work: Callable[[], T], quiet: bool = False
    ) -> tuple[T | None, list[Item]]:
        """The result, or the items that say why there is none.

        ``quiet``: report it only if it ends everything.
        """
        if self._stop.is_set():
            raise StoppedError
        try:
            return work(), []
        except AssayError as error:
            self._still_there(error)
            return None, [] if quiet else [failed(name, error, self._name)]
        except OSError as error:
            what = f"hub: {error.strerror or error}"
            return None, [failed(name, InfraError("E-HUB-IO", what), self._name)]

    def _still_there(self, error: Exception) -> None:
        """Raises GoneError unless the device still answers, after an error that makes one doubt."""
        if not isinstance(error, InfraError) or error.id not in _DOUBT_LINK:
            return
        try:
            self._transport.ping(timeout=PING_S / 2)
        except AssayError as gone:
            raise GoneError(gone.what) from gone


def _numpy(environment: Mapping[str, Any]) -> str:
    version = environment.get("numpy")
    return f"NumPy {version}" if version else "no NumPy"


def _without_numpy(name: str, finding: str) -> Item:
    return bad(name, finding, "install numpy for it", "E-NUMPY-MISSING")
