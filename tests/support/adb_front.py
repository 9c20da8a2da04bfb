"""A front to an adb server: lists devices as a test scripts them, and passes on all the rest.

No machine here has a USB phone. With this one, a device behind a real server has a USB path,
is unplugged, comes back elsewhere, or shares its serial with another.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from orchestrator.transports.adb_server import receive


class Front:
    """``port`` is what clients use; ``real`` (None: nothing) is what they reach by it.

    ``asked`` holds every service asked for. ``version``: what to claim; None: the real one's.
    """

    def __init__(self, real: int | None, *, version: int | None = None) -> None:
        self._real, self._version = real, version
        self._devices = ""
        self._changed = threading.Condition()
        self._ended = False
        self._links: set[socket.socket] = set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.asked: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.cut()

    def cut(self) -> None:
        """End all connections, as a server does that ends."""
        for link in list(self._links):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def show(self, *lines: str) -> None:
        """What ``adb devices -l`` lists from now on."""
        with self._changed:
            self._devices = "".join(f"{line}\n" for line in lines)
            self._changed.notify_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        self._links.add(link)
        with link, contextlib.suppress(OSError, EOFError):
            head = receive(link, 4)
            service = receive(link, int(head, 16)).decode()
            self.asked.append(service)
            if service == "host:version" and self._version is not None:
                link.sendall(b"OKAY" + _block(f"{self._version:04x}"))
            elif service == "host:devices-l":
                link.sendall(b"OKAY" + _block(self._devices))
            elif service == "host:track-devices-l":
                link.sendall(b"OKAY")
                for devices in self._lists():
                    link.sendall(_block(devices))
            elif self._real is not None:
                self._pass_on(link, head + service.encode())
        self._links.discard(link)

    def _lists(self) -> Iterator[str]:
        last: str | None = None
        while True:
            with self._changed:
                while not self._ended and self._devices == last:
                    self._changed.wait()
                if self._ended:
                    return
                last = self._devices
            yield last

    def _pass_on(self, link: socket.socket, request: bytes) -> None:
        assert self._real is not None
        with socket.create_connection(("127.0.0.1", self._real)) as real:
            real.sendall(request)
            back = threading.Thread(target=_pump, args=(real, link), daemon=True)
            back.start()
            _pump(link, real)
            back.join()


def _block(text: str) -> bytes:
    return b"%04x" % len(text.encode()) + text.encode()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
