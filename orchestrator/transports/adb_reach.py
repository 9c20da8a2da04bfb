"""From settings to a connection that takes commands; and whether it is still the same."""

from __future__ import annotations

import time
from collections.abc import Sequence

from orchestrator.errors import InfraError
from orchestrator.transports import failures
from orchestrator.transports.adb_devices import (
    READY,
    AdbDevice,
    candidates,
    choose,
    held,
    is_network,
    moved,
    wrong_state,
)
from orchestrator.transports.adb_server import USUAL_PORT, AdbServer
from orchestrator.transports.settings import AdbSettings

GREETING = 5.0
"""Seconds for the first answer over a connection that may be half open."""

SETTLING = 3.0
"""Seconds for a server that was started just now to find what is plugged in."""

_PAUSE = 0.1
_PASSING = ("E-ADB-ABSENT", "E-ADB-OFFLINE")


def reached(server: AdbServer, settings: AdbSettings, name: str, end: float) -> AdbDevice:
    """The one ready device that is meant, by ``end`` (monotonic); connected if need be.

    Raises InfraError E-ADB-CONNECT, -ABSENT, -HELD, -OFFLINE, -UNAUTHORIZED, -PERMISSION, -STATE,
    -AMBIGUOUS, -IDENTITY, -SERVER; E-LINK; DeadlineError.
    """
    if is_network(settings.serial):
        states = {d.state for d in candidates(server.devices(), settings)}
        if not states:
            _connect(server, settings, end)
        elif "offline" in states:
            reconnect(server, settings, end)
    end = min(end, time.monotonic() + SETTLING)
    while True:
        try:
            return choose(server.devices(), settings, name)
        except InfraError as error:
            if error.id not in _PASSING or time.monotonic() > end:
                raise _held_elsewhere(error, settings, name) or error from None
        time.sleep(_PAUSE)


def reconnect(server: AdbServer, settings: AdbSettings, end: float) -> None:
    """Forget this device's connection and make a new one; nobody else's is touched."""
    server.disconnect(settings.serial, max(0.1, end - time.monotonic()))
    _connect(server, settings, end)


def _connect(server: AdbServer, settings: AdbSettings, end: float) -> None:
    try:
        server.connect(settings.serial, max(0.1, end - time.monotonic()))
    except InfraError:
        # One that answers and lets nobody in is listed, and its state says more than this.
        if not candidates(server.devices(), settings):
            raise


def _held_elsewhere(error: InfraError, settings: AdbSettings, name: str) -> InfraError | None:
    """A USB device can be opened by one server only, and most desktops run one already."""
    if error.id != "E-ADB-ABSENT" or settings.server_port == USUAL_PORT:
        return None
    usual = AdbServer(settings.adb, USUAL_PORT)
    try:
        there = usual.version() is not None and candidates(usual.devices(), settings)
    except InfraError:
        return None  # whatever listens there, it is not what keeps the device from us
    return held(name, settings, USUAL_PORT) if there else None


def lost(devices: Sequence[AdbDevice] | None, bound: AdbDevice, name: str) -> InfraError | None:
    """Why a connection that was fine is none any more; None if it still is one.

    ``devices`` None: the server is gone, and with it every connection and its number.
    """
    if devices is None:
        return failures.link_down(name, "the adb server went away")
    same = [d for d in devices if d.transport_id == bound.transport_id]
    if same and (same[0].serial, same[0].usb) == (bound.serial, bound.usb):
        if same[0].state == READY:
            return None
        error = wrong_state(name, same[0])
        return failures.link_down(name, same[0].state) if error.retryable else error
    elsewhere = [d for d in devices if d.serial == bound.serial]
    if elsewhere and all(d.usb != bound.usb for d in elsewhere):
        return moved(name, bound.serial, bound.usb, elsewhere[0].usb)
    return failures.link_down(name, f"{bound.serial} was unplugged or disconnected")


def too_old(name: str) -> InfraError:
    return InfraError(
        "E-ADB-OLD",
        f"{name}: its adb has no shell protocol, so no exit status can be trusted",
        fix="Android 7 or newer is needed",
        retryable=False,
    )
