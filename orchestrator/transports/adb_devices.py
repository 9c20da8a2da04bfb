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

_FIELDS = ("usb", "product", "model", "device", "transport_id")
# "SERIAL   STATE usb:1-2.3 product:x model:y device:z transport_id:7"; a state may be words
# with colons ("no permissions (…); see [http://…]"), so only known fields end it.
_FIELD = re.compile(rf"\s+({'|'.join(_FIELDS)}):(\S+)")


@dataclass(frozen=True)
class AdbDevice:
    """One line of ``adb devices -l``. ``usb`` as adb names it (``usb:1-2.3``); None over TCP.

    ``transport_id``: the server's number for this very connection; a device that is plugged in
    again gets another one.
    """

    serial: str
    state: str
    usb: str | None = None
    product: str | None = None
    model: str | None = None
    device: str | None = None
    transport_id: int | None = None


def parse_devices(text: str) -> list[AdbDevice]:
    """The devices of a ``host:devices-l`` or ``host:track-devices-l`` answer."""
    return [device for line in text.splitlines() if (device := _parse_line(line)) is not None]


def _parse_line(line: str) -> AdbDevice | None:
    line = line.strip()
    if line.startswith(NO_SERIAL):
        serial, rest = NO_SERIAL, line[len(NO_SERIAL) :]
    else:
        serial, _, rest = line.partition("\t") if "\t" in line else line.partition(" ")
    first = _FIELD.search(rest)
    state = (rest[: first.start()] if first else rest).strip()
    if not serial or not state:
        return None
    fields = dict(_FIELD.findall(rest))
    number = fields.get("transport_id", "")
    return AdbDevice(
        serial=serial,
        state=state,
        usb=f"usb:{fields['usb']}" if "usb" in fields else None,
        product=fields.get("product"),
        model=fields.get("model"),
        device=fields.get("device"),
        transport_id=int(number) if number.isdecimal() else None,
    )


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
            mend="give each its USB path as `usb` in the inventory",
            retryable=False,
        )
    if not _is_where_recorded(found[0], settings):
        return moved(name, settings.serial, settings.usb, found[0].usb)
    return wrong_state(name, found[0])


def absent(name: str, settings: AdbSettings) -> InfraError:
    return InfraError(
        "E-ADB-ABSENT",
        f"{name}: the adb server on port {settings.server_port} sees no {settings.serial}",
        mend="check cable, power and USB debugging, and that no other adb server holds it",
    )


def held(name: str, settings: AdbSettings, port: int) -> InfraError:
    return InfraError(
        "E-ADB-HELD",
        f"{name}: {settings.serial} is held by the adb server on port {port}",
        mend=f"stop that server, or share it with `server_port: {port}` in the inventory",
        retryable=False,
    )


def moved(name: str, serial: str, recorded: str | None, now: str | None) -> InfraError:
    return InfraError(
        "E-ADB-IDENTITY",
        f"{name}: {serial} is at {now or 'no USB path'}, not at {recorded or 'the network'}",
        mend="put it back; once you know that it is the same unit, correct `usb` in the inventory,"
        " or run again where it names none",
        retryable=False,
    )


def other_build(name: str, recorded: str, now: str) -> InfraError:
    return InfraError(
        "E-ADB-IDENTITY",
        f"{name}: its fingerprint is {now or 'not set'}, not {recorded}",
        mend="another unit or system: correct `fingerprint` in the inventory if it is meant",
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
                mend="unlock the phone and accept this computer's key, with `always allow`",
                retryable=False,
            )
        case "offline" | "connecting" | "authorizing" | "detached":
            return InfraError(
                "E-ADB-OFFLINE", what, mend="wait a moment; else replug it or restart its adbd"
            )
        case state if state.startswith("no permissions"):
            return InfraError(
                "E-ADB-PERMISSION",
                f"{name}: this user may not open {device.serial} at {device.usb or 'its USB port'}",
                mend="add a udev rule (package android-sdk-platform-tools-common) and replug it",
                retryable=False,
            )
        case _:
            return InfraError(
                "E-ADB-STATE",
                f"{name}: {device.serial} is in the state {device.state!r}",
                mend="boot it into Android (`adb reboot`)",
                retryable=False,
            )
