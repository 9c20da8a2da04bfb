"""One authenticated SSH connection: socket, host key, login. Imports paramiko: import lazily."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterable
from pathlib import Path

import paramiko

from orchestrator.errors import InfraError
from orchestrator.transports import known_hosts
from orchestrator.transports.bounded import bounded
from orchestrator.transports.known_hosts import Standing
from orchestrator.transports.lines import shown
from orchestrator.transports.settings import SshSettings
from orchestrator.transports.ssh_config import Endpoint, resolve
from orchestrator.transports.ssh_login import authenticate
from orchestrator.transports.ssh_stream import Proxy, Socket, Tunnel

# What paramiko logs, its exceptions also say, and those are mapped.
_log = logging.getLogger("paramiko")
_log.addHandler(logging.NullHandler())
_log.propagate = False

BROKEN = (paramiko.SSHException, EOFError, OSError)
"""What paramiko raises when a connection fails; AssertionError and the like are bugs."""


_NO_GREETING = ("Error reading SSH protocol banner", "Indecipherable protocol version")
"""How paramiko begins its words for a first line that is not an ssh server's."""


class Link:
    """A paramiko transport, and what it goes through: a proxy's process, or a gateway's link."""

    def __init__(self) -> None:
        self.transport: paramiko.Transport | None = None
        self._socket: Socket | Tunnel | None = None
        self._gateway: Link | None = None
        self._proxy: Proxy | None = None
        self.given_up = False

    def dial(self, endpoint: Endpoint, settings: SshSettings, device: str) -> paramiko.Transport:
        """Connection, banner, key exchange. Raises BROKEN exceptions; the key is unverified.

        A gateway is logged in to, its key verified, and raises what `dialled` does, or InfraError
        E-SSH-JUMP.
        """
        sock = self._socket = (
            self._tunnel(endpoint, endpoint.gateway, settings, device)
            if endpoint.gateway
            else self._direct(endpoint, settings)
        )
        transport = self.transport = _Transport(sock)  # type: ignore[arg-type]  # a tunnel is socket enough
        transport.banner_timeout = settings.connect_timeout
        transport.auth_timeout = settings.connect_timeout
        known = known_hosts.matching(read_known_hosts(endpoint.known_hosts), endpoint.host_name)
        _prefer(transport, {e.algorithm for e in known})
        transport.start_client(timeout=settings.connect_timeout)
        transport.get_remote_server_key()
        return transport

    def _direct(self, endpoint: Endpoint, settings: SshSettings) -> Socket:
        sock = Socket(self._connect(endpoint, settings), 4 * settings.keepalive)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(AttributeError, OSError):  # Linux only
                # A half-open link: keepalives that nobody acknowledges end it in the kernel.
                option, limit = socket.TCP_USER_TIMEOUT, int(4000 * settings.keepalive)
                sock.setsockopt(socket.IPPROTO_TCP, option, limit)
        return sock

    def _tunnel(
        self, endpoint: Endpoint, via: SshSettings, settings: SshSettings, device: str
    ) -> Tunnel:
        nearer = resolve(via)
        self._gateway = dialled(nearer, via, device, login=True)
        assert self._gateway.transport is not None
        try:
            channel = self._gateway.transport.open_channel(
                "direct-tcpip",
                (endpoint.host, endpoint.port),
                ("127.0.0.1", 0),
                timeout=settings.connect_timeout,
            )
        except paramiko.SSHException as error:
            why = error.text if isinstance(error, paramiko.ChannelException) else reason(error)
            raise InfraError(
                "E-SSH-JUMP",
                f"{device}: gateway {nearer.host} port {nearer.port} opens no connection to"
                f" {endpoint.host} port {endpoint.port}: {why}",
                fix="is the device on, and does the gateway forward (AllowTcpForwarding)?",
            ) from error
        return Tunnel(channel, 4 * settings.keepalive)

    def _connect(self, endpoint: Endpoint, settings: SshSettings) -> socket.socket:
        if endpoint.proxy is None:
            return socket.create_connection(
                (endpoint.host, endpoint.port), timeout=settings.connect_timeout
            )
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._proxy = Proxy(endpoint.proxy, theirs)
            except OSError:
                ours.close()
                raise
        return ours

    def heard(self) -> str:
        """What came instead of an ssh server's greeting, for an error; empty if nothing did."""
        said = [self._proxy.text()] if self._proxy is not None else []
        said += [self._socket.heard.text()] if self._socket is not None else []
        return " / ".join(filter(None, said))

    def abandon(self) -> None:
        """Cut the connection without waiting for anyone."""
        self.given_up = True
        if self._gateway is not None:  # first: what is said through a stuck one waits for it
            self._gateway.abandon()
        if self.transport is not None:
            self.transport.close()
        if self._socket is not None:
            self._socket.close()
        if self._proxy is not None:
            self._proxy.kill()

    def close(self) -> None:
        self.abandon()
        if self.transport is not None and self.transport.ident is not None:
            self.transport.join(2.0)
        if self._gateway is not None:
            self._gateway.close()
        if self._proxy is not None:
            self._proxy.wait()


def dialled(endpoint: Endpoint, settings: SshSettings, device: str, *, login: bool) -> Link:
    """A connection whose host key, if ``login``, was verified before any credential was shown.

    Raises InfraError E-SSH-UNREACHABLE, E-SSH-HOSTKEY-UNKNOWN, E-SSH-HOSTKEY, E-SSH-AUTH, of the
    device or of a gateway, and E-SSH-JUMP.
    """
    link = Link()

    def work() -> None:
        try:
            transport = link.dial(endpoint, settings, device)
            if login:
                verify(transport, endpoint, device)
                authenticate(transport, endpoint, device)
                transport.set_keepalive(max(1, round(settings.keepalive)))
        finally:
            if link.given_up:  # nobody waits any more for what was opened since
                link.abandon()

    try:
        bounded(work, settings.connect_timeout, link.abandon)
    except BROKEN as error:
        said = link.heard()
        link.close()
        raise _unreachable(device, endpoint, settings, error, said) from error
    except BaseException:
        link.close()
        raise
    return link


def read_known_hosts(paths: Iterable[Path]) -> list[known_hosts.Entry]:
    """What all of these files say; nothing is said by one that is not there."""
    entries = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            entries += known_hosts.parse(path.read_text(errors="replace"))
    return entries


def verify(transport: paramiko.Transport, endpoint: Endpoint, device: str) -> None:
    """The presented host key against known_hosts: returns only if it is vouched for."""
    blob = transport.get_remote_server_key().asbytes()
    entries = read_known_hosts(endpoint.known_hosts)
    standing = known_hosts.standing(entries, endpoint.host_name, blob)
    files = " or ".join(map(str, endpoint.known_hosts))
    shown = f"{endpoint.host_name} shows {known_hosts.fingerprint(blob)}"
    match standing:
        case Standing.KNOWN:
            return
        case Standing.UNKNOWN:
            raise InfraError(
                "E-SSH-HOSTKEY-UNKNOWN",
                f"{device}: the host key is not in {files}: {shown}",
                fix=f"compare it with the device's own, then `assay devices trust {device}`",
                retryable=False,
            )
        case Standing.CHANGED | Standing.REVOKED:
            was = "revoked" if standing is Standing.REVOKED else "not the one on file"
            raise InfraError(
                "E-SSH-HOSTKEY",
                f"{device}: the host key is {was} in {files}: {shown}",
                fix="find out why before trusting it: the device was set up anew, or it is "
                "another machine",
                retryable=False,
            )


class _Transport(paramiko.Transport):
    """One whose thread trips over what the other side sends has a broken connection, and no more.

    paramiko hands on UnicodeDecodeError, ValueError and whatever else its parsing raises.
    """

    def get_exception(self) -> Exception | None:
        error: Exception | None = super().get_exception()
        if error is None or isinstance(error, BROKEN):
            return error
        broken = paramiko.SSHException(f"it does not speak ssh as agreed: {error}")
        broken.__cause__ = error
        return broken


def _prefer(transport: paramiko.Transport, known: set[str]) -> None:
    """Ask for a kind of key that is on file, else another kind would look like a change."""
    options = transport.get_security_options()
    names = known | ({"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in known else set())
    options.key_types = tuple(sorted(options.key_types, key=lambda k: k not in names))


def _unreachable(
    device: str, endpoint: Endpoint, settings: SshSettings, error: BaseException, said: str
) -> InfraError:
    timed_out = isinstance(error, TimeoutError)
    why = f"no answer within {settings.connect_timeout:g} s" if timed_out else reason(error)
    if why.startswith(_NO_GREETING):
        why = "what answers is no ssh server, or hung up before it said so"
    why += f"; it said: {said}" if said else ""
    return InfraError(
        "E-SSH-UNREACHABLE",
        f"{device}: no ssh connection to {endpoint.host} port {endpoint.port}{endpoint.through}:"
        f" {why}",
        fix="is it on, and is this its address?",
    )


def reason(error: BaseException) -> str:
    """Words for an exception of paramiko or the system, some of which have none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return shown(str(error)) or "the other side closed the connection"
