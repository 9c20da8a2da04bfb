"""What an adb server says of its devices, and what to tell the user about it: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.errors import InfraError
from orchestrator.transports.settings import AdbSettings

READY = "device"
"""The state in which a device takes commands."""

NO_SERIAL = "(no serial number)"

NO_PERMISSIONS = "no permissions"
STATES = (
    "device", "offline", "unauthorized", "authorizing", "connecting", "recovery", "sideload",
    "rescue", "bootloader", "host", "detached", "unknown", NO_PERMISSIONS,
)  # fmt: skip
"""What adb itself calls the states of a connection. A newer one may know more."""

_FIELDS = ("usb", "product", "model", "device", "transport_id")
# "%-22s %s" of serial and state, then " usb:1-2.3 product:x model:y device:z transport_id:7". A
# serial may hold spaces (mDNS: "adb-x (2)._adb-tls-connect._tcp"), and so may what follows a state
# ("no permissions (…); see [http://…]") and a product's name.
_WIDTH = 22
_STATE = re.compile(rf"\s+({'|'.join(STATES)})(?![^\s;(,])")
_FIELD = re.compile(r"\s([a-z_]+):(\S*)")
_KNOWN_FIELD = re.compile(rf"\s({'|'.join(_FIELDS)}):")
_BARE_PATH = re.compile(r"\s([0-9]{1,3}-[0-9]{1,3}(?:\.[0-9]{1,3})*)(?!\S)")
"""How an adb that uses libusb names the place: without ``usb:``."""
_CHATTER = re.compile(r"\* |List of devices attached|adb server |adb: |adb[WEI] |error:|warning:")
"""How lines of the client begin that tell of no device."""


@dataclass(frozen=True)
class AdbDevice:
    """One line of ``adb devices -l``. ``usb`` as adb names it (``usb:1-2.3``); None over TCP.

    ``transport_id``: the server's number for this very connection; a device that is plugged in
    again gets another one. ``remark``: what adb says of the state besides.
    """

    serial: str
    state: str
    usb: str | None = None
    product: str | None = None
    model: str | None = None
    device: str | None = None
    transport_id: int | None = None
    remark: str = ""


def parse_devices(text: str) -> list[AdbDevice]:
    """The devices of a ``host:devices-l`` or ``host:track-devices-l`` answer."""
    return [device for line in text.splitlines() if (device := _parse_line(line)) is not None]


def _parse_line(line: str) -> AdbDevice | None:
    line = line.rstrip()
    if _CHATTER.match(line.lstrip()):
        return None
    serial, state, rest = _split(line)
    if not serial or not state:
        return None
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(rest):
        fields.setdefault(name, value)
    first = _KNOWN_FIELD.search(rest)
    between = rest[: first.start()] if first else rest
    path = _BARE_PATH.search(between)
    place = fields.get("usb") or (path[1] if path else None)
    number = fields.get("transport_id", "")
    return AdbDevice(
        serial=serial,
        state=state,
        usb=f"usb:{place}" if place else None,
        product=fields.get("product") or None,
        model=fields.get("model") or None,
        device=fields.get("device") or None,
        transport_id=int(number) if re.fullmatch("[0-9]{1,18}", number) else None,
        remark=_BARE_PATH.sub("", between).strip(),
    )


def _split(line: str) -> tuple[str, str, str]:
    """Serial, state, and the rest of the line from the blank behind the state on."""
    if "\t" in line:  # the short listing
        serial, _, rest = line.partition("\t")
        known = _STATE.match(" " + rest.lstrip())
        return _known(serial, known, rest) if known else _new(serial, rest)
    found = list(_STATE.finditer(line))
    at_its_column = [m for m in found if m.start(1) == _WIDTH + 1]
    for known in at_its_column or found:
        serial = line[: known.start()].strip()
        if serial and not _KNOWN_FIELD.search(serial):
            return serial, known[1], line[known.end() :]
        break
    line = line.lstrip()
    if line.startswith(NO_SERIAL):
        return _new(NO_SERIAL, line[len(NO_SERIAL) :])
    serial, _, rest = line.partition(" ")
    return _new(serial, rest)


def _known(serial: str, state: re.Match[str], rest: str) -> tuple[str, str, str]:
    return serial.strip(), state[1], (" " + rest.lstrip())[state.end() :]


def _new(serial: str, rest: str) -> tuple[str, str, str]:
    """A state that is not known: the words before the place and the fields."""
    rest = " " + rest.lstrip()
    ends = [m.start() for m in (_FIELD.search(rest), _BARE_PATH.search(rest)) if m]
    end = min(ends, default=len(rest))
    return serial.strip(), rest[:end].strip(), rest[end:]


def is_network(serial: str) -> bool:
    """Whether ``adb connect`` is how this device is reached: ``host:port``."""
    host, colon, port = serial.rpartition(":")
    return bool(host and colon) and port.isdecimal()


def choose(devices: Sequence[AdbDevice], settings: AdbSettings, name: str) -> AdbDevice:
    """The one ready device that the settings mean; raises as ``diagnose`` says."""
    found = candidates(devices, settings)
    if len(found) == 1 and found[0].state == READY and _is_where_recorded(found[0], settings):
        return found[0]
    raise diagnose(devices, settings, name)


def candidates(devices: Iterable[AdbDevice], settings: AdbSettings) -> list[AdbDevice]:
    """Those of the serial; with a USB path in the settings, those at it, if any are."""
    same = [d for d in devices if d.serial == settings.serial]
    return [d for d in same if d.usb == settings.usb] or same if settings.usb else same


def _is_where_recorded(device: AdbDevice, settings: AdbSettings) -> bool:
    return settings.usb is None or device.usb == settings.usb


def diagnose(devices: Sequence[AdbDevice], settings: AdbSettings, name: str) -> InfraError:
    """Why no device can be used: E-ADB-ABSENT, -AMBIGUOUS, -IDENTITY or by its state."""
    found = candidates(devices, settings)
    if not found:
        return absent(name, settings)
    if len(found) > 1:
        places = ", ".join(d.usb or d.serial for d in found)
        return InfraError(
            "E-ADB-AMBIGUOUS",
            f"{name}: {len(found)} devices have the serial {settings.serial} ({places})",
            fix="give each its USB path as `usb` in the inventory",
            retryable=False,
        )
    if not _is_where_recorded(found[0], settings):
        return moved(name, settings.serial, settings.usb, found[0].usb)
    return wrong_state(name, found[0])


def absent(name: str, settings: AdbSettings) -> InfraError:
    return InfraError(
        "E-ADB-ABSENT",
        f"{name}: the adb server on port {settings.server_port} sees no {settings.serial}",
        fix="check cable, power and USB debugging, and that no other adb server holds it",
    )


def held(name: str, settings: AdbSettings, port: int) -> InfraError:
    return InfraError(
        "E-ADB-HELD",
        f"{name}: {settings.serial} is held by the adb server on port {port}",
        fix=f"stop that server, or share it with `server_port: {port}` in the inventory",
        retryable=False,
    )


def moved(name: str, serial: str, recorded: str | None, now: str | None) -> InfraError:
    return InfraError(
        "E-ADB-IDENTITY",
        f"{name}: {serial} is at {now or 'no USB path'}, not at {recorded or 'the network'}",
        fix="put it back; once you know that it is the same unit, correct `usb` in the inventory,"
        " or run again where it names none",
        retryable=False,
    )


def other_build(name: str, recorded: str, now: str) -> InfraError:
    return InfraError(
        "E-ADB-IDENTITY",
        f"{name}: its fingerprint is {now or 'not set'}, not {recorded}",
        fix="another unit or system: correct `fingerprint` in the inventory if it is meant",
        retryable=False,
    )


def wrong_state(name: str, device: AdbDevice) -> InfraError:
    """The error for a device that is there and cannot be used as it is."""
    what = f"{name}: {device.serial} is {device.state}"
    match device.state:
        case "unauthorized":
            return InfraError(
                "E-ADB-UNAUTHORIZED",
                what,
                fix="unlock the phone and accept this computer's key, with `always allow`",
                retryable=False,
            )
        case "offline" | "connecting" | "authorizing" | "detached":
            return InfraError(
                "E-ADB-OFFLINE", what, fix="wait a moment; else replug it or restart its adbd"
            )
        case state if state == NO_PERMISSIONS:
            return InfraError(
                "E-ADB-PERMISSION",
                f"{name}: this user may not open {device.serial} at {device.usb or 'its USB port'}",
                fix="add a udev rule (package android-sdk-platform-tools-common) and replug it",
                retryable=False,
            )
        case _:
            return InfraError(
                "E-ADB-STATE",
                f"{name}: {device.serial} is in the state {device.state!r}",
                fix="boot it into Android (`adb reboot`)",
                retryable=False,
            )


def unaddressable(device: AdbDevice) -> InfraError:
    """The error for a ready device whose serial cannot stand in an inventory."""
    if device.serial == NO_SERIAL:
        why, fix = "it has no serial number", "have its maker's tools give it one"
    else:
        why, fix = "its serial holds what no inventory entry may", "rename it"
    return InfraError(
        "E-ADB-SERIAL",
        f"{device.serial} cannot be addressed by its serial: {why}",
        fix=f"{fix}, or reach it as HOST:PORT over the network (`adb tcpip 5555`)",
        retryable=False,
    )


def unnumbered(name: str, settings: AdbSettings) -> InfraError:
    """The error for a server that gives its connections no numbers."""
    return InfraError(
        "E-ADB-SERVER",
        f"{name}: the adb server on port {settings.server_port} gives {settings.serial} no"
        " transport_id",
        fix="platform-tools 28 or newer is needed",
        retryable=False,
    )
