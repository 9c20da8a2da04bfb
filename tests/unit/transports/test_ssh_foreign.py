"""What an ssh server may send that no library expects: a broken connection, in one line."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest

from orchestrator.errors import InfraError
from orchestrator.transports import SshSettings
from orchestrator.transports.trust import fetch_host_key

BANNER = b"SSH-2.0-x\r\n"
KEXINIT, KEX_REPLY, DISCONNECT, DEBUG = b"\x14", b"\x1f", b"\x01", b"\x04"


def packet(payload: bytes) -> bytes:
    """Unencrypted, as RFC 4253 frames it."""
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    head = struct.pack(">IB", len(payload) + padding + 1, padding)
    return head + payload + bytes(padding)


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def kexinit(algorithm: bytes = b"curve25519-sha256@libssh.org") -> bytes:
    rest = (b"ssh-ed25519", *(b"aes128-ctr",) * 2, *(b"hmac-sha2-256",) * 2, *(b"none",) * 2)
    names = b"".join(text(name) for name in (algorithm, *rest, b"", b""))
    return packet(KEXINIT + bytes(16) + names + bytes(5))


@pytest.mark.parametrize(
    "sent",
    [
        BANNER + packet(KEXINIT),
        BANNER + packet(KEXINIT + bytes(16) + struct.pack(">I", 0x7FFFFFFF) + b"abc"),
        BANNER + kexinit(b"\xff\xfe\xff"),
        BANNER + kexinit() + packet(KEX_REPLY),
        BANNER + kexinit() + packet(KEX_REPLY + text(b"abcd") + text(b"\x01" * 32) + text(b"abc")),
        BANNER + kexinit() + packet(KEX_REPLY + text(b"") + text(b"\x01" * 5) + text(b"")),
        BANNER + packet(DISCONNECT + struct.pack(">I", 2) + text(b"\xff\xff") + text(b"")),
        BANNER + packet(DEBUG),
        BANNER + struct.pack(">I", 0x7FFFFFFF) + b"x" * 64,
        BANNER + b"\x00" * 64,
        b"\xff\xfe\xfd SSH\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_no_words_of_a_server_end_as_a_bug(sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            link, _ = listening.accept()
            with link, contextlib.suppress(OSError):  # paramiko hangs up in the middle
                link.sendall(sent)
                link.shutdown(socket.SHUT_WR)
                while link.recv(4096):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        port = listening.getsockname()[1]
        settings = SshSettings(host="127.0.0.1", port=port, user="x", config=False)
        with pytest.raises(InfraError) as caught:
            fetch_host_key(settings, device="unit")
    assert caught.value.id == "E-SSH-UNREACHABLE"
    assert str(caught.value).startswith("unit: ")
