"""Looking at a device's host key and, when the user says so, putting it into known_hosts.

Nothing else in Assay writes there. Imports paramiko: import lazily.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.transports import copying, known_hosts
from orchestrator.transports.known_hosts import Entry, Standing
from orchestrator.transports.settings import SshSettings
from orchestrator.transports.ssh_config import Endpoint, resolve
from orchestrator.transports.ssh_link import dialled, read_known_hosts


@dataclass(frozen=True)
class HostKey:
    """``fingerprint`` as ``ssh-keygen -l`` shows it; ``line`` as known_hosts holds it.

    ``address``: the host asked for it, with user and port, for people.
    """

    algorithm: str
    fingerprint: str
    line: str
    address: str = field(default="", compare=False)

    @property
    def host_name(self) -> str:
        """The name under which it was shown: what is vouched for is this one, no other."""
        return self.line.split(" ", 1)[0]


def fetch_host_key(settings: SshSettings, device: str) -> HostKey:
    """The key the device shows now, unverified: for a human to compare. No login is tried.

    Raises InfraError E-SSH-UNREACHABLE, InputError E-SSH-CONFIG.
    """
    endpoint = resolve(settings)
    link = dialled(endpoint, settings, device, login=False)
    try:
        assert link.transport is not None
        key = link.transport.get_remote_server_key()
        return _host_key(endpoint, key.get_name(), key.asbytes())
    finally:
        link.close()


def known(settings: SshSettings) -> list[HostKey]:
    """The keys on file for the device, hashed and wildcard lines included, revoked ones not."""
    endpoint = resolve(settings)
    return [_host_key(endpoint, e.algorithm, e.blob) for e in _on_file(endpoint) if not e.marker]


def standing(settings: SshSettings, key: HostKey) -> Standing:
    """What known_hosts says about ``key``."""
    endpoint = resolve(settings)
    return known_hosts.standing(_on_file(endpoint), endpoint.host_name, _blob(key))


def trust(settings: SshSettings, key: HostKey, *, replace: bool = False) -> None:
    """Vouch for ``key`` in the known_hosts file (mode 0600, replaced in one step).

    Does nothing if it is there already. Raises InfraError E-SSH-HOSTKEY when another key is on
    file, unless ``replace``, and always for a revoked key; InputError E-LOCAL-FILE.
    """
    endpoint = resolve(settings)
    # Through a symbolic link: it may point into a folder of dotfiles and shall go on doing so.
    path = endpoint.known_hosts[0].resolve()
    with copying.raising(copying.our_file(path)), _locked(path.parent):
        text = path.read_text(errors="surrogateescape") if path.exists() else ""
        entries = known_hosts.parse(text)
        everywhere = [*entries, *read_known_hosts(endpoint.known_hosts[1:])]
        match known_hosts.standing(everywhere, key.host_name, _blob(key)):
            case Standing.KNOWN:
                return
            case Standing.REVOKED:
                raise _conflict(
                    endpoint, key, "marks this key as revoked", "get the device a new key"
                )
            case Standing.CHANGED if not replace:
                raise _conflict(
                    endpoint,
                    key,
                    "holds another key for it",
                    "find out why it changed, then trust it with --replace",
                )
            case Standing.CHANGED:
                text = _without(text, entries, key.host_name)
            case Standing.UNKNOWN:
                pass
        if text and not text.endswith("\n"):
            text += "\n"
        data = (text + key.line + "\n").encode(errors="surrogateescape")
        with copying.replacing(path, copying.our_file(path), mode=0o600) as write:
            write(data)


def _on_file(endpoint: Endpoint) -> list[Entry]:
    return known_hosts.matching(read_known_hosts(endpoint.known_hosts), endpoint.host_name)


def _host_key(endpoint: Endpoint, algorithm: str, blob: bytes) -> HostKey:
    line = f"{endpoint.host_name} {algorithm} {base64.b64encode(blob).decode()}"
    return HostKey(algorithm, known_hosts.fingerprint(blob), line, endpoint.address)


def _blob(key: HostKey) -> bytes:
    (entry,) = known_hosts.parse(key.line)
    return entry.blob


def _without(text: str, entries: list[Entry], host: str) -> str:
    """``text`` less what it says about ``host``; other names on the same lines stay.

    A wildcard that covers more than this host stays too: the new line will be found beside it.
    """
    lines = text.splitlines()
    for entry in reversed(entries):
        if entry.marker or not entry.names(host):
            continue
        words = lines[entry.number].split(None, 1)
        others = [p for p in entry.patterns if not Entry.is_exactly(p, host)]
        if not others:
            del lines[entry.number]
        elif len(others) < len(entry.patterns):
            lines[entry.number] = f"{','.join(others)} {words[1]}"
    return "".join(f"{line}\n" for line in lines)


def _conflict(endpoint: Endpoint, key: HostKey, what: str, fix: str) -> InfraError:
    return InfraError(
        "E-SSH-HOSTKEY",
        f"{' or '.join(map(str, endpoint.known_hosts))} {what}: {key.host_name}",
        fix=fix,
        retryable=False,
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two `devices trust` at once must not lose each other's line."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
