"""An Android device behind adb."""

from __future__ import annotations

from orchestrator.errors import InfraError
from orchestrator.transports.base import Transport
from orchestrator.transports.settings import AdbSettings


def AdbTransport(settings: AdbSettings, *, device: str) -> Transport:  # noqa: N802
    raise InfraError("E-ADB", f"{device}: adb is not built yet", retryable=False)
