"""What an adb server reports by itself: devices that come, go and change their state."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from orchestrator.transports.adb_devices import AdbDevice, parse_devices
from orchestrator.transports.adb_server import (
    ASKING,
    AdbServer,
    Refused,
    open_service,
    receive_block,
)

AGAIN = 0.5
"""Seconds until a lost server is looked for again."""


@dataclass(frozen=True)
class Report:
    """``devices`` at ``at`` (seconds of time.monotonic); None: the server cannot be asked."""

    at: float
    devices: tuple[AdbDevice, ...] | None


class Tracker:
    """A thread on ``host:track-devices-l``, between ``__enter__`` and ``__exit__``.

    It reconnects by itself and starts no server. A pulled network cable is *not* reported: the
    server itself does not notice. ``on_report`` is called in the thread, for each report.
    """

    def __init__(
        self, server: AdbServer, on_report: Callable[[Report], object] | None = None
    ) -> None:
        self._server, self._on_report = server, on_report
        self._changed = threading.Condition()
        self._latest: Report | None = None
        self._link: socket.socket | None = None
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="assay-adb-track")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._left.set()
        with self._changed:
            if self._link is not None:
                # Wakes a thread that waits in recv, which closing would not.
                with contextlib.suppress(OSError):
                    self._link.shutdown(socket.SHUT_RDWR)
        self._thread.join(2 * ASKING)

    @property
    def latest(self) -> Report | None:
        """The last report; None before the first."""
        with self._changed:
            return self._latest

    def wait_for(
        self, wanted: Callable[[Sequence[AdbDevice] | None], bool], timeout: float
    ) -> Report | None:
        """The first report, from the latest on, whose devices are ``wanted``; None in the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._latest is not None and wanted(self._latest.devices), timeout
            )
            found = self._latest
        return found if found is not None and wanted(found.devices) else None

    def _work(self) -> None:
        while not self._left.is_set():
            with (
                contextlib.suppress(OSError, EOFError, ValueError, Refused),
                open_service(self._server.port, "host:track-devices-l", ASKING) as link,
            ):
                self._follow(link)
            if not self._left.is_set():
                self._report(None)
                self._left.wait(AGAIN)

    def _follow(self, link: socket.socket) -> None:
        with self._changed:
            self._link = link
        try:
            link.settimeout(None)
            while not self._left.is_set():
                self._report(tuple(parse_devices(receive_block(link))))
        finally:
            with self._changed:
                self._link = None

    def _report(self, devices: tuple[AdbDevice, ...] | None) -> None:
        report = Report(time.monotonic(), devices)
        with self._changed:
            if devices is None and self._latest is not None and self._latest.devices is None:
                return
            self._latest = report
            self._changed.notify_all()
        if self._on_report is not None:
            self._on_report(report)
