"""A key agent in front of a real one, which also lists keys that cannot be used."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_SIGN, _LISTED, _LIST, _REFUSED = 13, 12, 11, b"\5"


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


_SK = _string(b"sk-ssh-ed25519@openssh.com") + _string(b"\1" * 32) + _string(b"ssh:")
_SK_EC = (
    _string(b"sk-ecdsa-sha2-nistp256@openssh.com")
    + _string(b"nistp256")
    + _string(b"\4" + b"\1" * 64)
    + _string(b"ssh:")
)
KEYS: dict[str, tuple[bytes, bytes]] = {
    "sk": (_SK, b"yubikey"),
    "skec": (_SK_EC, b"yubikey 2"),
    "dss": (_string(b"ssh-dss") + _string(b"\1" * 128) + _string(b"\1" * 20) * 3, b"old"),
    "weird": (_string(b"ssh-mldsa65@example") + _string(b"\1" * 32), b"new"),
    "badutf": (_string(b"ssh-ed25519") + _string(b"\2" * 32), b"Ger\xe4t"),
    "empty": (_string(b"ssh-rsa"), b""),
}


class FakeAgent:
    """Listens at ``path``; what it does not answer itself goes to ``real``."""

    def __init__(self, path: Path, real: Path, extra: Sequence[str]) -> None:
        self.path, self._real = path, real
        self._extra = [KEYS[name] for name in extra]
        self._listener = socket.socket(socket.AF_UNIX)

    @property
    def authorized(self) -> str:
        """The first extra key as a line of authorized_keys."""
        blob, _ = self._extra[0]
        name = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode()
        return f"{name} {base64.b64encode(blob).decode()}"

    def __enter__(self) -> Self:
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as real:
            real.connect(str(self._real))
            while request := _message(client):
                real.sendall(_string(request))
                client.sendall(_string(self._answer(request, _message(real))))

    def _answer(self, request: bytes, real: bytes) -> bytes:
        if request[0] == _LIST and real[0] == _LISTED:
            count = int.from_bytes(real[1:5], "big") + len(self._extra)
            ours = b"".join(_string(blob) + _string(name) for blob, name in self._extra)
            return bytes([_LISTED]) + count.to_bytes(4, "big") + ours + real[5:]
        blob = request[5 : 5 + int.from_bytes(request[1:5], "big")]
        if request[0] == _SIGN and blob in [key for key, _ in self._extra]:
            return _REFUSED
        return real


def _message(stream: socket.socket) -> bytes:
    """Empty at the end of the stream."""
    head = stream.recv(4, socket.MSG_WAITALL)
    return stream.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if len(head) == 4 else b""
