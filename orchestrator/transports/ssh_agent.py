"""A key agent's keys, as far as they can be used. Imports paramiko: import lazily.

paramiko's own client gives up all keys when one has a name that is not UTF-8, and lets the whole
connection end when the agent will not sign with one: a FIDO key that nobody touches, say.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.message import Message

_LIST, _LISTED, _SIGN, _SIGNED = 11, 12, 13, 14
_LONGEST = 256 * 1024
"""Bytes of an answer, as OpenSSH limits it."""

_MOST = 2048
"""Keys that are listed, as OpenSSH limits them."""

_CERTIFIED = "-cert-v01@openssh.com"
KINDS = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
"""What servers of today take; certificates of them too."""


class AgentKey(paramiko.PKey):
    """A key that an agent holds. ``unusable``: why it did not sign, once it was asked to."""

    def __init__(self, agent: Agent, blob: bytes) -> None:
        self.public_blob = None
        self.unusable: str | None = None
        self._agent, self._blob = agent, blob

    def get_name(self) -> str:
        return name_of(self._blob)

    def asbytes(self) -> bytes:
        return self._blob

    @property
    def _fields(self) -> tuple[Any, ...]:
        return (self._blob,)

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> Message:
        """A signature; where the agent refuses one, something that no server takes for one.

        An exception would end paramiko's thread and with it the connection, on which the next
        key is to be tried.
        """
        try:
            return Message(self._agent.sign(self._blob, data, algorithm or ""))
        except (OSError, ValueError) as error:
            self.unusable = f"the agent does not sign with it ({error})"
            empty = Message()
            empty.add_string(algorithm or self.get_name())
            empty.add_string(b"")
            return empty


class Agent:
    """A connection to the agent behind ``path``. OSError if there is none."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def listed(self) -> Iterator[AgentKey]:
        """All that it holds. OSError, ValueError for an answer that is none."""
        kind, answer = self._ask(bytes([_LIST]))
        if kind != _LISTED:
            raise ValueError("it does not list its keys")
        for _ in range(min(answer.get_int(), _MOST)):
            blob = answer.get_binary()
            answer.get_binary()  # a comment, in whatever encoding
            yield AgentKey(self, blob)

    def sign(self, blob: bytes, data: bytes, algorithm: str) -> bytes:
        """Raises OSError, ValueError when it does not."""
        hashes = {"rsa-sha2-256": 2, "rsa-sha2-512": 4}
        request = Message()
        request.add_byte(bytes([_SIGN]))
        request.add_string(blob)
        request.add_string(data)
        request.add_int(hashes.get(algorithm.removesuffix(_CERTIFIED), 0))
        kind, answer = self._ask(request.asbytes())
        if kind != _SIGNED:
            raise ValueError("refused")
        return answer.get_binary()

    def _ask(self, request: bytes) -> tuple[int, Message]:
        self._socket.sendall(len(request).to_bytes(4, "big") + request)
        size = int.from_bytes(self._exactly(4), "big")
        if not 0 < size <= _LONGEST:
            raise ValueError(f"an answer of {size} bytes")
        answer = self._exactly(size)
        return answer[0], Message(answer[1:])

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self._socket.recv(size - len(data))
            if not chunk:
                raise OSError("it hung up")
            data += chunk
        return data


def name_of(blob: bytes) -> str:
    """The kind of key, certificate's or plain, that a public key says it is."""
    return Message(blob).get_binary().decode("ascii", "replace")


def is_usable(name: str) -> bool:
    """Whether keys of this kind can be shown to a server at all."""
    plain = name.replace(_CERTIFIED, "@openssh.com" if name.startswith("sk-") else "")
    return plain in KINDS


def certifies(certificate: bytes, blob: bytes) -> bool:
    """Whether ``certificate`` is one for the plain public key ``blob``.

    A certificate is the kind, a nonce, and then the key as the plain one has it after its kind.
    """
    plain, signed = Message(blob), Message(certificate)
    kind, name = plain.get_binary(), signed.get_binary()
    signed.get_binary()
    kind = kind.removesuffix(b"@openssh.com") + _CERTIFIED.encode()
    return name == kind and signed.get_remainder().startswith(plain.get_remainder())
