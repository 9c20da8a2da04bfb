"""One authenticated SSH connection: socket, host key, login. Imports paramiko: import lazily."""

from __future__ import annotations

import contextlib
import errno
import logging
import shlex
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType

from orchestrator.errors import InfraError
from orchestrator.transports import known_hosts
from orchestrator.transports.bounded import bounded
from orchestrator.transports.known_hosts import Standing
from orchestrator.transports.settings import SshSettings
from orchestrator.transports.ssh_config import Endpoint, resolve

# What paramiko logs, its exceptions also say, and those are mapped.
_log = logging.getLogger("paramiko")
_log.addHandler(logging.NullHandler())
_log.propagate = False

BROKEN = (paramiko.SSHException, EOFError, OSError)
"""What paramiko raises when a connection fails; AssertionError and the like are bugs."""


class _Socket(socket.socket):
    """Gives up when the other side takes no byte for ``stall`` seconds.

    paramiko retries a write without limit while the socket is open, so that a stopped sshd
    with full buffers would hang the caller.
    """

    stall: float = 20.0
    _since: float | None = None

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]  # one buffer type is enough here
        try:
            sent = super().send(data, flags)
        except TimeoutError:
            self._since = self._since or time.monotonic()
            if time.monotonic() - self._since > self.stall:
                raise OSError(errno.ETIMEDOUT, "the other side takes no data") from None
            raise
        self._since = None
        return sent


class _Tunnel:
    """A connection that a gateway opened for us, as paramiko takes a socket.

    Like `_Socket` it gives up when no byte is taken for ``stall`` seconds.
    """

    def __init__(self, channel: paramiko.Channel, stall: float) -> None:
        self._channel, self._stall = channel, stall
        self._since: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        self._channel.settimeout(seconds)

    def recv(self, limit: int) -> bytes:
        return self._channel.recv(limit)

    def send(self, data: bytes) -> int:
        try:
            sent = self._channel.send(data)
        except TimeoutError:
            self._since = self._since or time.monotonic()
            if time.monotonic() - self._since > self._stall:
                raise OSError(errno.ETIMEDOUT, "the gateway takes no data") from None
            raise
        self._since = None
        return sent

    def close(self) -> None:
        self._channel.close()

    @property
    def _closed(self) -> bool:
        """paramiko looks at this part of a socket while it waits for its thread to end."""
        return bool(self._channel.closed)


class Link:
    """A paramiko transport, and what it goes through: a proxy's process, or a gateway's link."""

    def __init__(self) -> None:
        self.transport: paramiko.Transport | None = None
        self._socket: _Socket | _Tunnel | None = None
        self._gateway: Link | None = None
        self._proxy: subprocess.Popen[bytes] | None = None
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
        transport = self.transport = paramiko.Transport(sock)  # type: ignore[arg-type]  # a tunnel is socket enough
        transport.banner_timeout = settings.connect_timeout
        transport.auth_timeout = settings.connect_timeout
        known = known_hosts.matching(read_known_hosts(endpoint.known_hosts), endpoint.host_name)
        _prefer(transport, {e.algorithm for e in known})
        transport.start_client(timeout=settings.connect_timeout)
        transport.get_remote_server_key()
        return transport

    def _direct(self, endpoint: Endpoint, settings: SshSettings) -> _Socket:
        sock = _Socket(fileno=self._connect(endpoint, settings).detach())
        sock.stall = 4 * settings.keepalive
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(AttributeError, OSError):  # Linux only
                # A half-open link: keepalives that nobody acknowledges end it in the kernel.
                option, limit = socket.TCP_USER_TIMEOUT, int(4000 * settings.keepalive)
                sock.setsockopt(socket.IPPROTO_TCP, option, limit)
        return sock

    def _tunnel(
        self, endpoint: Endpoint, via: SshSettings, settings: SshSettings, device: str
    ) -> _Tunnel:
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
                mend="is the device on, and does the gateway forward (AllowTcpForwarding)?",
            ) from error
        return _Tunnel(channel, 4 * settings.keepalive)

    def _connect(self, endpoint: Endpoint, settings: SshSettings) -> socket.socket:
        if endpoint.proxy is None:
            return socket.create_connection(
                (endpoint.host, endpoint.port), timeout=settings.connect_timeout
            )
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._proxy = subprocess.Popen(
                    endpoint.proxy,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise OSError(error.errno, f"{endpoint.proxy[0]}: {error.strerror}") from error
        return ours

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
                _authenticate(transport, endpoint, device)
                transport.set_keepalive(max(1, round(settings.keepalive)))
        finally:
            if link.given_up:  # nobody waits any more for what was opened since
                link.abandon()

    try:
        bounded(work, settings.connect_timeout, link.abandon)
    except BROKEN as error:
        link.close()
        raise _unreachable(device, endpoint, settings, error) from error
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
                mend=f"compare it with the device's own, then `assay devices trust {device}`",
                retryable=False,
            )
        case Standing.CHANGED | Standing.REVOKED:
            was = "revoked" if standing is Standing.REVOKED else "not the one on file"
            raise InfraError(
                "E-SSH-HOSTKEY",
                f"{device}: the host key is {was} in {files}: {shown}",
                mend="find out why before trusting it: the device was set up anew, or it is "
                "another machine",
                retryable=False,
            )


def _prefer(transport: paramiko.Transport, known: set[str]) -> None:
    """Ask for a kind of key that is on file, else another kind would look like a change."""
    options = transport.get_security_options()
    names = known | ({"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in known else set())
    options.key_types = tuple(sorted(options.key_types, key=lambda k: k not in names))


def _authenticate(transport: paramiko.Transport, endpoint: Endpoint, device: str) -> None:
    tried: list[str] = []
    with contextlib.closing(paramiko.Agent()) if endpoint.agent else contextlib.nullcontext() as a:
        agent_keys = list(a.get_keys()) if a is not None else []
        for name, key in _candidates(endpoint, agent_keys, tried):
            try:
                further = transport.auth_publickey(endpoint.user, key)
            except paramiko.BadAuthenticationType as error:
                offers = ", ".join(error.allowed_types) or "what it does not name"
                raise _refused(device, endpoint, f"it takes only {offers}") from error
            except paramiko.AuthenticationException as error:
                tried.append(f"{name} refused")
                if not transport.is_active():
                    raise _refused(device, endpoint, "; ".join(tried)) from error
            except BROKEN as error:
                # sshd hangs up after MaxAuthTries keys.
                tried.append(f"{name}: {error or 'it hung up'}")
                raise _refused(device, endpoint, "; ".join(tried)) from error
            else:
                if further:
                    raise _refused(device, endpoint, f"it asks for {', '.join(further)} as well")
                return
    raise _refused(device, endpoint, "; ".join(tried) or "there is no key to try")


def _candidates(
    endpoint: Endpoint, agent_keys: list[paramiko.AgentKey], tried: list[str]
) -> Iterator[tuple[str, paramiko.PKey]]:
    """Key files, then the agent's keys. What cannot be used is noted in ``tried``."""
    for path in endpoint.keys:
        if not path.exists():
            tried.append(f"{path} does not exist")
            continue
        try:
            key = paramiko.PKey.from_path(path)  # and its certificate, if one lies beside it
        except (paramiko.PasswordRequiredException, TypeError):
            # paramiko 4 and 5 let cryptography's TypeError for "encrypted" through.
            tried.append(f"{path} is encrypted: ssh-add it")
        except (paramiko.SSHException, OSError, ValueError, UnknownKeyType) as error:
            tried.append(f"{path}: {error}")
        else:
            yield str(path), key
    wanted = _public_blobs(endpoint.keys) if endpoint.only_keys else None
    for agent_key in agent_keys:
        if wanted is None or agent_key.asbytes() in wanted:
            yield f"agent key {agent_key.fingerprint}", agent_key


def _public_blobs(keys: Iterable[Path]) -> set[bytes]:
    """The public halves beside private keys, by which IdentitiesOnly picks from the agent."""
    blobs = set()
    for path in keys:
        with contextlib.suppress(OSError):
            text = path.with_name(path.name + ".pub").read_text(errors="replace")
            blobs |= {e.blob for e in known_hosts.parse(f"* {text}")}
    return blobs


def _refused(device: str, endpoint: Endpoint, why: str) -> InfraError:
    return InfraError(
        "E-SSH-AUTH",
        f"{device}: {endpoint.user}@{endpoint.host} refused the login: {why}",
        mend="put a public key of yours into its authorized_keys, or set `user` and `key`",
        retryable=False,
    )


def _unreachable(
    device: str, endpoint: Endpoint, settings: SshSettings, error: BaseException
) -> InfraError:
    timed_out = isinstance(error, TimeoutError)
    why = f"no answer within {settings.connect_timeout:g} s" if timed_out else reason(error)
    through = f" through `{shlex.join(endpoint.proxy)}`" if endpoint.proxy else ""
    through = f" through gateway {endpoint.gateway.host}" if endpoint.gateway else through
    return InfraError(
        "E-SSH-UNREACHABLE",
        f"{device}: no ssh connection to {endpoint.host} port {endpoint.port}{through}: {why}",
        mend="is it on, and is this its address?",
    )


def reason(error: BaseException) -> str:
    """Words for an exception of paramiko or the system, some of which have none."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "the other side closed the connection"
