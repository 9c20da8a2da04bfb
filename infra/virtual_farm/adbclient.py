"""Just enough of adb's protocol to see that a phone answers and to run a command on it.

The farm needs no adb client installed, and a client's server would keep its own idea of which
phones there are.
"""

from __future__ import annotations

import socket
import struct
import time

from .config import FarmError

VERSION, MAX_DATA = 0x01000001, 256 * 1024
CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE"
HEADER = struct.Struct("<4s5I")
LOCAL_ID = 1


def send(link: socket.socket, kind: bytes, first: int, second: int, data: bytes = b"") -> None:
    """Send one message."""
    magic = int.from_bytes(kind, "little") ^ 0xFFFFFFFF
    checksum = sum(data) & 0xFFFFFFFF
    link.sendall(HEADER.pack(kind, first, second, len(data), checksum, magic) + data)


def receive(link: socket.socket) -> tuple[bytes, int, bytes]:
    """Return kind, first argument and data of the next message."""
    kind, first, _, length, _, _ = HEADER.unpack(_exactly(link, HEADER.size))
    if length > MAX_DATA:
        raise FarmError("what answers there does not speak adb")
    return kind, first, _exactly(link, length)


def _exactly(link: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        if not (more := link.recv(length - len(data))):
            raise FarmError("the phone hung up")
        data += more
    return data


def _connect(address: str, port: int, timeout_s: float) -> socket.socket:
    link = socket.create_connection((address, port), timeout_s)
    try:
        link.settimeout(timeout_s)
        send(link, CNXN, VERSION, MAX_DATA, b"host::\0")
        if receive(link)[0] != CNXN:
            raise FarmError("the phone wants a key")
    except BaseException:
        link.close()
        raise
    return link


def greet(address: str, port: int, timeout_s: float) -> None:
    """Return when adbd answers; raise OSError or FarmError when it does not."""
    _connect(address, port, timeout_s).close()


def shell(address: str, port: int, command: str, timeout_s: float) -> str:
    """Run a shell command; return what it wrote, on either output."""
    deadline = time.monotonic() + timeout_s
    said = b""
    with _connect(address, port, timeout_s) as link:
        send(link, OPEN, LOCAL_ID, 0, f"shell:{command}\0".encode())
        while True:
            link.settimeout(max(0.01, deadline - time.monotonic()))
            kind, remote, data = receive(link)
            if kind == WRTE:
                said += data
                send(link, OKAY, LOCAL_ID, remote)
            elif kind == CLSE:
                return said.decode("utf-8", "replace").replace("\r\n", "\n")
