"""The cable to a phone: carries connections from the host into the phone's own network.

Debian's adbd listens on every interface there is, so a phone has a network namespace of its own,
with nothing but loopback in it. A socket belongs to the namespace it was made in: this process
made its listener before it left the host's network, and connects to adbd in the phone's. While
the cable is pulled nothing moves: no byte, no end of a connection, no new one.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from .config import Board

CHUNK = 256 * 1024
POLL_S = 0.02
CONNECT_S = 5.0


def listen(board: Board) -> socket.socket:
    """Open the phone's address on the host."""
    listener = socket.create_server((board.address, board.port), backlog=64)
    listener.setblocking(False)
    return listener


@dataclass(eq=False)
class End:
    """One side of a connection: what it is still to be sent, and what it said last."""

    link: socket.socket
    waiting: bytearray = field(default_factory=bytearray)
    ended: bool = False
    closed: bool = False
    peer: End = field(init=False)

    def events(self) -> int:
        """Return what this side waits for. Nothing more is read than the peer can take."""
        read = selectors.EVENT_READ if not self.ended and len(self.peer.waiting) < CHUNK else 0
        return read | (selectors.EVENT_WRITE if self.waiting else 0)


class Relay:
    """Carries connections until it is told to stop; ``plugged`` says whether the cable is in."""

    def __init__(
        self, listener: socket.socket, target: tuple[str, int], plugged: Callable[[], bool]
    ) -> None:
        """Start without a connection."""
        self._listener, self._target, self._plugged = listener, target, plugged
        self._ends: list[End] = []

    def step(self) -> None:
        """Carry what there is to carry now, or wait a little."""
        if not self._plugged():
            time.sleep(POLL_S)
            return
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            for end in self._ends:
                if events := end.events():
                    selector.register(end.link, events, end)
            ready = selector.select(POLL_S)
        for key, events in ready:
            if key.data is None:
                self._accept()
            elif not key.data.closed:
                self._carry(key.data, events)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            outer = self._listener.accept()[0]
            # Not create_connection: it looks for a codec, and the host's files are out of reach.
            inner = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            inner.settimeout(CONNECT_S)
            try:
                inner.connect(self._target)
            except OSError:  # nobody listens there now
                inner.close()
                outer.close()
                return
            pair = End(outer), End(inner)
            for end, peer in (pair, pair[::-1]):
                end.peer = peer
                end.link.setblocking(False)
                end.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ends.append(end)

    def _carry(self, end: End, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                data = end.link.recv(CHUNK)
                end.ended = not data
                end.peer.waiting += data
                self._send(end.peer)
            if events & selectors.EVENT_WRITE:
                self._send(end)
        except BlockingIOError:
            return
        except OSError:
            self._close(end)
            return
        if end.ended and end.peer.ended and not end.waiting and not end.peer.waiting:
            self._close(end)

    def _send(self, end: End) -> None:
        with contextlib.suppress(BlockingIOError):
            while end.waiting:
                with memoryview(end.waiting) as view:
                    sent = end.link.send(view)
                del end.waiting[:sent]
        if end.peer.ended and not end.waiting:
            end.link.shutdown(socket.SHUT_WR)

    def _close(self, end: End) -> None:
        for side in (end, end.peer):
            side.closed = True
            side.link.close()
            self._ends.remove(side)


def serve(
    listener: socket.socket, target: tuple[str, int], plugged: Callable[[], bool]
) -> NoReturn:
    """Carry connections for ever."""
    relay = Relay(listener, target, plugged)
    while True:
        relay.step()
