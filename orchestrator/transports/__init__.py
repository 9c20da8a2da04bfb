"""Ways to reach a device: local, ssh, adb, fake; one Protocol (base.py), one contract suite."""

from __future__ import annotations

from typing import assert_never

from orchestrator.transports.base import MAX_LINE, Channel, Completed, Transport
from orchestrator.transports.settings import (
    AdbSettings,
    FakeSettings,
    Fault,
    LocalSettings,
    SshSettings,
    TransportSettings,
)

__all__ = [
    "MAX_LINE",
    "AdbSettings",
    "Channel",
    "Completed",
    "FakeSettings",
    "Fault",
    "LocalSettings",
    "SshSettings",
    "Transport",
    "TransportSettings",
    "open_transport",
]


def open_transport(settings: TransportSettings, *, device: str) -> Transport:
    """The transport for ``device`` (its name, for messages); connected when entered."""
    # Imported here: paramiko alone costs more than `assay status` may take to start.
    match settings:
        case LocalSettings():
            from orchestrator.transports.local import LocalTransport

            return LocalTransport(settings, device=device)
        case SshSettings():
            from orchestrator.transports.ssh import SshTransport

            return SshTransport(settings, device=device)
        case AdbSettings():
            from orchestrator.transports.adb import AdbTransport

            return AdbTransport(settings, device=device)
        case FakeSettings():
            from orchestrator.transports.fake import FakeTransport

            return FakeTransport(settings, device=device)
        case _:
            assert_never(settings)
