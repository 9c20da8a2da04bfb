"""Devices that nobody has listed yet, proposed as inventory entries. Nothing is written.

Only the given addresses and the given adb server are asked. Nobody is logged in to unless the user
named a key or allowed the agent, and the host key is known; no password is ever tried.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.devices.facts import read_facts
from orchestrator.devices.shell_facts import board_of, read_extras
from orchestrator.errors import AssayError, InputError
from orchestrator.matrix.device_class import GENERIC, DeviceClass, recognise
from orchestrator.matrix.inventory import Device, default_python
from orchestrator.transports import AdbSettings, SshSettings, open_transport
from orchestrator.transports.adb_devices import READY, AdbDevice, unaddressable, wrong_state
from orchestrator.transports.base import Transport
from orchestrator.transports.known_hosts import Standing

A = TypeVar("A")
B = TypeVar("B")

MOST = 1024
"""Addresses in one scan."""
AT_ONCE = 32
ANSWER_S = 2.0
"""For a TCP connection, and for the first line behind it."""
LOGIN_S = 15.0
FACTS_S = 30.0

_IDENTIFYING = ("serial", "fingerprint")


@dataclass(frozen=True)
class Login:
    """What the user allows. Without ``key`` and ``agent`` nobody is logged in to."""

    user: str | None = None
    key: str | None = None
    agent: bool = False
    known_hosts: str | None = None

    @property
    def allowed(self) -> bool:
        return self.key is not None or self.agent


@dataclass(frozen=True)
class Found:
    """A device that answered a scan.

    ``known``: its name in the inventory. ``facts``: None until it was asked. ``entry``: for the
    inventory, with remarks in ``notes`` on what is not known. ``error``, ``fix``: why it cannot be
    used as it is.
    """

    how: str
    address: str
    says: str
    known: str | None = None
    entry: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    facts: Mapping[str, Any] | None = None
    error: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class _Seen:
    """What a shell told. ``classes``: the most specific first."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    board: str | None = None
    python: str | None = None


def wanted(ranges: Iterable[str]) -> list[str]:
    """All addresses of ``a``, ``a/prefix`` and ``a-b``. Raises InputError E-SCAN-RANGE."""
    found: dict[str, None] = {}
    for text in ranges:
        for address in _span(text):
            found[str(address)] = None
            if len(found) > MOST:
                raise InputError(
                    "E-SCAN-RANGE",
                    f"{text} makes it more than {MOST} addresses",
                    fix="name a smaller range",
                )
    return list(found)


def _span(text: str) -> Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        first, dash, last = text.partition("-")
        if not dash:
            network = ipaddress.ip_network(text.strip(), strict=False)
            return network.hosts()
        low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
        if low.version != high.version or int(low) > int(high):
            raise ValueError("the end lies before the beginning")
    except ValueError as error:
        raise InputError(
            "E-SCAN-RANGE", str(error), fix="such as 10.0.0.0/28, 10.0.0.7 or 10.0.0.7-10.0.0.20"
        ) from None
    return (type(low)(number) for number in range(int(low), int(high) + 1))


def scan_adb(
    adb: str, server_port: int, devices: Iterable[Device], classes: Sequence[DeviceClass]
) -> list[Found]:
    """What the adb server sees, in whatever state.

    Raises InfraError E-ADB-MISSING, E-ADB-SERVER, E-LINK.
    """
    from orchestrator.transports.adb import list_devices

    seen = list_devices(adb, server_port)
    known = [(d.name, d.transport) for d in devices if isinstance(d.transport, AdbSettings)]
    return _each(AT_ONCE, lambda one: _phone(one, adb, server_port, known, classes), seen)


def _phone(
    one: AdbDevice,
    adb: str,
    server_port: int,
    known: Sequence[tuple[str, AdbSettings]],
    classes: Sequence[DeviceClass],
) -> Found:
    name = next(
        (n for n, s in known if s.serial == one.serial and s.usb in (None, one.usb)),
        None,
    )
    says = " ".join(w for w in (one.state, one.remark, one.model, one.usb) if w)
    found = Found("adb", one.serial, says, name)
    if one.state != READY:
        return _unusable(found, wrong_state(one.serial, one))
    if name is not None:
        return found
    settings: dict[str, Any] = {"type": "adb", "serial": one.serial}
    settings |= {"usb": one.usb} if one.usb else {}
    settings |= {"adb": adb} if adb != "adb" else {}
    settings |= {"server_port": server_port} if server_port != 5137 else {}
    try:
        checked = AdbSettings.model_validate(settings)
    except ValidationError:  # what adb says of a unit need not fit into an inventory
        return _unusable(found, unaddressable(one))
    try:
        with open_transport(checked, device=one.serial) as transport:
            told = _ask(transport, classes)
    except AssayError as error:
        return _unusable(found, error)
    return _proposed(found, settings, told, classes)


def _unusable(found: Found, error: AssayError) -> Found:
    return replace(found, error=error.id, fix=error.fix)


def scan_range(
    addresses: Sequence[str],
    port: int,
    login: Login,
    devices: Iterable[Device],
    classes: Sequence[DeviceClass],
) -> list[Found]:
    """What answers as an ssh server, in the order of the addresses."""
    if not addresses:
        return []
    known = _known_endpoints(devices)
    banners = _each(AT_ONCE, lambda address: _banner(address, port), addresses)
    speaking = [(a, b) for a, b in zip(addresses, banners, strict=True) if b is not None]
    return _each(
        AT_ONCE // 4,
        lambda one: _host(one[0], one[1], port, login, known.get((one[0], port)), classes),
        speaking,
    )


def _each(at_once: int, work: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """In order. Leaving early (Ctrl-C) waits only for what has begun."""
    pool = ThreadPoolExecutor(at_once)
    try:
        return list(pool.map(work, items))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _banner(address: str, port: int) -> str | None:
    """The first line of an ssh server, "" of something else that listens, None of nobody."""
    try:
        link = socket.create_connection((address, port), ANSWER_S)
    except OSError:
        return None
    with link:
        try:
            line = link.recv(255)
        except OSError:  # it says nothing, or hung up
            line = b""
    text = line.split(b"\n")[0].decode("ascii", "replace").strip()
    return text if text.startswith("SSH-") else ""


def _known_endpoints(devices: Iterable[Device]) -> dict[tuple[str, int], str]:
    """(address, port) -> name. A host name counts by all addresses that it has."""
    from orchestrator.transports.ssh_config import resolve

    found: dict[tuple[str, int], str] = {}
    for device in devices:
        if not isinstance(device.transport, SshSettings):
            continue
        endpoint = resolve(device.transport)
        if endpoint.proxy is not None or endpoint.gateway is not None:
            continue  # its address is another host's business
        try:
            told = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except OSError:
            continue  # a name that nobody knows today
        for *_, address in told:
            found[str(address[0]), endpoint.port] = device.name
    return found


def _host(
    address: str,
    banner: str,
    port: int,
    login: Login,
    known: str | None,
    classes: Sequence[DeviceClass],
) -> Found:
    from orchestrator.transports.trust import fetch_host_key, standing

    at = address if port == 22 else f"{address}:{port}"
    found = Found("ssh", at, banner or "listens, and is no ssh server", known)
    if not banner or known is not None:
        return found
    settings: dict[str, Any] = {"type": "ssh", "host": address}
    settings |= {"port": port} if port != 22 else {}
    settings |= {"user": login.user} if login.user else {}
    settings |= {"key": login.key} if login.key else {}
    settings |= {"known_hosts": login.known_hosts} if login.known_hosts else {}
    settings |= {} if login.agent or not login.key else {"agent": False}
    quick = SshSettings.model_validate({**settings, "connect_timeout": LOGIN_S})
    try:
        key = fetch_host_key(quick, device=address)
        stands = standing(quick, key)
    except AssayError as error:
        return _unusable(found, error)
    shown = f"host key {key.algorithm} {key.fingerprint}"
    if stands is Standing.UNKNOWN:
        note = f"{shown} is not known: compare it, then `assay devices trust NAME` first"
        return _proposed(found, settings, None, classes, note)
    if stands is not Standing.KNOWN:
        fix = "find out why, then `assay devices trust NAME --replace`"
        what = {"error": "E-SSH-HOSTKEY", "fix": fix, "notes": (f"{shown} is {stands.value}",)}
        return Found(**{**vars(found), **what})
    if not login.allowed:
        return _proposed(
            found, settings, None, classes, "not logged in: --key or --agent allows it"
        )
    try:
        with open_transport(quick, device=address) as transport:
            told = _ask(transport, classes)
    except AssayError as error:
        return _unusable(_proposed(found, settings, None, classes, error.what), error)
    return _proposed(found, settings, told, classes)


def _ask(transport: Transport, classes: Sequence[DeviceClass]) -> _Seen:
    """Raises what the transport raises, InfraError E-FACTS."""
    generic = next(known for known in classes if known.name == GENERIC)
    facts = read_facts(transport, generic.facts, timeout=FACTS_S).values()
    machine = facts.get("machine")
    fitting = recognise(facts, str(machine) if machine else None, classes)
    board = board_of(read_extras(transport, timeout=FACTS_S))
    where = transport.run(["sh", "-c", "command -v python3"], timeout=FACTS_S)
    python = where.stdout.decode("utf-8", "replace").strip()
    return _Seen(
        facts,
        tuple(fitting),
        str(board["class"]) if isinstance(board, dict) and board.get("class") else None,
        python if where.returncode == 0 and python.startswith("/") else None,
    )


def _proposed(
    found: Found,
    settings: Mapping[str, Any],
    told: _Seen | None,
    classes: Sequence[DeviceClass],
    *notes: str,
) -> Found:
    """With an entry that loads as it stands; what it only supposes is said in its notes."""
    remarks = list(notes)
    seen = told or _Seen()
    like = seen.classes[0] if seen.classes else GENERIC
    profile = next(known for known in classes if known.name == like)
    if told is None:
        remarks.append("class and python are not known")
    else:
        products = {known.name for known in classes if known.recognise} - {like}
        others = [name for name in seen.classes if name in products]
        remarks += [f"its facts also fit {', '.join(others)}"] if others else []
    name = _name(seen.board or like, found.address)
    entry: dict[str, Any] = {"name": name, "class": seen.board or like}
    if seen.board and seen.board != like:
        entry["like"] = like
    entry["transport"] = dict(settings)
    entry["python"] = {"default": default_python(profile, seen.python or "python3")}
    if profile.python == "system" and told is not None and seen.python is None:
        remarks.append("no python3 on its path: name one, or a hermetic bundle")
    tells = profile.told()
    known = {n: seen.facts.get(n) for n in _IDENTIFYING if n in tells}
    identity = {name: str(value) for name, value in known.items() if value is not None}
    if identity:
        entry["identity"] = identity
    missing = [d for d in profile.delegates if d]
    if missing:
        remarks.append(f"its class has {', '.join(missing)}: name its library under `delegates`")
    return Found(
        found.how, found.address, found.says, found.known, entry, tuple(remarks), seen.classes,
        None if told is None else dict(seen.facts),
    )  # fmt: skip


def _name(kind: str, address: str) -> str:
    """A name for an entry: what it is, and the end of its address."""
    tail = address.rpartition(":")[0] if re.fullmatch(r"[^:]+:\d+", address) else address
    last = re.split(r"[.:]", tail)[-1] if re.fullmatch(r"[0-9a-fA-F.:]+", tail) else tail
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{kind}-{last}").strip("-")
    return plain[:63]
