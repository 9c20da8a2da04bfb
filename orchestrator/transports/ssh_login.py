"""Logging in with the keys at hand. Imports paramiko: import lazily."""

from __future__ import annotations

import base64
import binascii
import contextlib
import copy
import io
import itertools
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import paramiko
from paramiko.message import Message
from paramiko.pkey import PublicBlob

from orchestrator.errors import InfraError
from orchestrator.transports import known_hosts, ssh_agent
from orchestrator.transports.lines import shown
from orchestrator.transports.ssh_agent import Agent, AgentKey
from orchestrator.transports.ssh_config import Endpoint

_TITLE = re.compile(r"^-----BEGIN (\w+) PRIVATE KEY-----", re.MULTILINE)
_BODY = re.compile(r"BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END", re.DOTALL)
_MAGIC = b"openssh-key-v1\0"
_KINDS = ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss", "dsa")
_USUAL = frozenset(f"id_{kind}" for kind in _KINDS)
"""Names of keys below ~/.ssh that OpenSSH looks for without being told."""


def authenticate(transport: paramiko.Transport, endpoint: Endpoint, device: str) -> None:
    """Try one key after the other. Raises InfraError E-SSH-AUTH, which lists what was tried."""
    attempt = _Login(transport, endpoint, device)
    if attempt.needs_none():
        return
    with attempt.agent() as agent:
        for name, key in attempt.candidates(agent):
            if attempt.accepted(name, key):
                return
    raise attempt.refused("; ".join(attempt.notes()))


class _Login:
    def __init__(self, transport: paramiko.Transport, endpoint: Endpoint, device: str) -> None:
        self._transport, self._endpoint, self._device = transport, endpoint, device
        self._tried: list[str] = []
        self._absent: list[str] = []
        self._banner = b""

    def notes(self) -> list[str]:
        """What was tried; that the usual files are not there only if nothing was."""
        absent = [f"there is no {', '.join(self._absent)}"] if self._absent else []
        return self._tried or absent or ["there is no key to try"]

    def refused(self, why: str) -> InfraError:
        said = shown(self._transport.get_banner() or self._banner)
        return InfraError(
            "E-SSH-AUTH",
            f"{self._device}: {self._endpoint.user}@{self._endpoint.host} refused the login: {why}"
            + (f"; it said: {said}" if said else ""),
            fix="put a public key of yours into its authorized_keys, or set `user` and `key`",
            retryable=False,
        )

    def needs_none(self) -> bool:
        """Whether it lets us in as we are. As ssh does: the answer says what else it takes.

        And by then the server's list of signature algorithms has come.
        """
        try:
            self._transport.auth_none(self._endpoint.user)
        except paramiko.BadAuthenticationType as error:
            self._banner = self._transport.get_banner() or b""  # sent once, forgotten by the next
            if "publickey" not in error.allowed_types:
                offers = ", ".join(error.allowed_types) or "what it does not name"
                raise self.refused(f"it takes only {offers}") from error
            return False
        except (paramiko.SSHException, EOFError) as error:
            raise self.refused(str(error) or "it hung up") from error
        return True

    def accepted(self, name: str, key: paramiko.PKey) -> bool:
        """Whether that was enough. What it was not enough for is noted."""
        if not self._can_sign(key):
            self._tried.append(f"{name}: the server takes none of our RSA signatures")
            return False
        try:
            further = self._transport.auth_publickey(self._endpoint.user, key)
        except paramiko.BadAuthenticationType as error:
            offers = ", ".join(error.allowed_types) or "what it does not name"
            raise self.refused("; ".join([*self._tried, f"it takes only {offers}"])) from error
        except paramiko.AuthenticationException as error:
            unusable = key.unusable if isinstance(key, AgentKey) else None
            self._tried.append(f"{name}: {unusable}" if unusable else f"{name} refused")
            if not self._transport.is_active():
                raise self.refused("; ".join(self._tried)) from error
            return False
        except (paramiko.SSHException, EOFError, OSError) as error:
            # sshd hangs up after MaxAuthTries keys.
            self._tried.append(f"{name}: {error or 'it hung up'}")
            raise self.refused("; ".join(self._tried)) from error
        if further:
            raise self.refused(f"it asks for {', '.join(further)} as well")
        return True

    def _can_sign(self, key: paramiko.PKey) -> bool:
        """With what the server does not take, paramiko would end the connection."""
        extensions: dict[str, bytes] = vars(self._transport)["server_extensions"]
        listed = extensions.get("server-sig-algs", b"")
        ours = [name for name in self._transport.preferred_pubkeys if "rsa" in name]
        theirs = listed.decode("ascii", "replace").split(",")
        return "rsa" not in key.get_name() or not listed or not set(ours).isdisjoint(theirs)

    @contextlib.contextmanager
    def agent(self) -> Iterator[Agent | None]:
        """None where none is asked, or none answers, which is noted."""
        found = None
        if self._endpoint.agent is not None:
            try:
                found = Agent(self._endpoint.agent)
            except OSError as error:
                self._tried.append(f"{self._endpoint.agent_note}: {error.strerror or error}")
        elif self._endpoint.agent_note:
            self._tried.append(self._endpoint.agent_note)
        with contextlib.closing(found) if found else contextlib.nullcontext():
            yield found

    def candidates(self, agent: Agent | None) -> Iterator[tuple[str, paramiko.PKey]]:
        """Key files, then the agent's keys; each first with the certificates that are for it."""
        certificates = dict(self._certificates())
        fitting: set[Path] = set()
        shown_already: set[bytes] = set()
        for name, key in itertools.chain(self._from_files(), self._from_agent(agent)):
            blob = key.asbytes()
            if blob in shown_already:
                continue
            shown_already.add(blob)
            for path, certificate in certificates.items():
                if ssh_agent.certifies(certificate.key_blob, blob):
                    fitting.add(path)
                    certified = copy.copy(key)
                    certified.public_blob = certificate
                    yield f"{name} with {path.name}", certified
            yield name, key
        unfit = certificates.keys() - fitting
        self._tried += [f"{path} certifies none of these keys" for path in sorted(unfit)]

    def _certificates(self) -> Iterator[tuple[Path, PublicBlob]]:
        beside = [path.with_name(f"{path.name}-cert.pub") for path in self._endpoint.keys]
        for path in [*self._endpoint.certificates, *(p for p in beside if p.exists())]:
            try:
                yield path, PublicBlob.from_string(path.read_text(errors="replace"))
            except (OSError, ValueError, paramiko.SSHException) as error:
                self._tried.append(f"{path} is no certificate: {_why(error)}")

    def _from_files(self) -> Iterator[tuple[str, paramiko.PKey]]:
        for path in self._endpoint.keys:
            try:
                text = path.read_text(errors="replace")
            except OSError as error:
                usual = path.parent == Path.home() / ".ssh" and path.name in _USUAL
                gone = isinstance(error, FileNotFoundError)
                if gone and usual:
                    self._absent.append(str(path))
                else:
                    self._tried.append(f"{path} {'does not exist' if gone else _why(error)}")
                continue
            key = _private_key(text)
            if isinstance(key, str):
                self._tried.append(f"{path} {key}")
            else:
                yield str(path), key

    def _from_agent(self, agent: Agent | None) -> Iterator[tuple[str, paramiko.PKey]]:
        if agent is None:
            return
        wanted = set(_public_blobs(self._endpoint.keys)) if self._endpoint.only_keys else None
        try:
            for key in agent.listed():
                name = f"agent key {key.fingerprint}"
                if wanted is not None and key.asbytes() not in wanted:
                    continue
                if ssh_agent.is_usable(key.get_name()):
                    yield name, key
                else:
                    self._tried.append(f"{name} is of the kind {shown(key.get_name())}")
        except (OSError, ValueError, struct.error) as error:
            self._tried.append(f"{self._endpoint.agent_note}: {_why(error)}")


def _private_key(text: str) -> paramiko.PKey | str:
    """The key in a file, or what is the matter with it."""
    kind = _kind(text)
    make = _MADE_OF.get(kind)
    if known_hosts.parse(f"* {text}"):
        return "is a public key: an agent must hold the private half"
    if kind.startswith("sk-"):
        return f"is of the kind {kind}, with which only an agent signs: ssh-add it"
    if make is None:
        return f"is of the kind {shown(kind)}" if kind else "holds no private key that we can read"
    try:
        return make.from_private_key(io.StringIO(text))
    except paramiko.PasswordRequiredException:
        return "is encrypted: ssh-add it"
    # Damaged files surface as whatever the libraries below paramiko come upon.
    except Exception as error:  # noqa: BLE001
        return f"cannot be read: {_why(error)}"


_MADE_OF: dict[str, type[paramiko.PKey]] = {
    "ssh-ed25519": paramiko.Ed25519Key,
    "ssh-rsa": paramiko.RSAKey,
    "RSA": paramiko.RSAKey,
    "ecdsa-sha2-nistp256": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp384": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp521": paramiko.ECDSAKey,
    "EC": paramiko.ECDSAKey,
}
"""By the kind of the public half, or by the title of an older file."""


def _kind(text: str) -> str:
    """What a private key's file says it holds, without a passphrase; empty if nothing."""
    title = _TITLE.search(text)
    if title is None:
        return ""
    return title[1] if title[1] != "OPENSSH" else ssh_agent.name_of(_public_half(text))


def _public_half(text: str) -> bytes:
    """Out of a private key as OpenSSH writes it, which leaves it readable; empty if it is none."""
    body = _BODY.search(text)
    try:
        data = base64.b64decode(body[1]) if body else b""
    except binascii.Error:
        return b""
    if not data.startswith(_MAGIC):
        return b""
    message = Message(data[len(_MAGIC) :])
    for _ in range(3):  # cipher, key derivation, its options
        message.get_binary()
    message.get_int()  # how many keys: one
    return message.get_binary()


def _public_blobs(keys: Iterable[Path]) -> Iterator[bytes]:
    """The public halves in or beside key files, by which IdentitiesOnly picks from the agent."""
    for path in keys:
        for file in (path, path.with_name(f"{path.name}.pub")):
            with contextlib.suppress(OSError):
                text = file.read_text(errors="replace")
                yield _public_half(text)
                yield from (entry.blob for entry in known_hosts.parse(f"* {text}"))


def _why(error: BaseException) -> str:
    words = error.strerror if isinstance(error, OSError) else None
    return shown(words or str(error) or type(error).__name__)
