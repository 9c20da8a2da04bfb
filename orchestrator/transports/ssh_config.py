"""Where an ssh device really is: its settings completed from OpenSSH's configuration."""

from __future__ import annotations

import getpass
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.transports import ssh_config_file, ssh_config_program, ssh_tokens
from orchestrator.transports.settings import SshSettings

Reader = Callable[[SshSettings, Path | None], Mapping[str, list[str]]]
"""Host, port and user of the inventory go into the reading; values by keyword come out."""

_FILE = "~/.ssh/config"


@dataclass(frozen=True)
class Endpoint:
    """``proxy``: shell command whose stdin and stdout are the connection, or None.

    ``keys``: private key files to try in order; ``only_keys``: ask the agent for none but these.
    ``certificates``: further ones than those that lie beside the keys. ``agent``: the socket of
    the key agent, None if none is asked; ``agent_note``: what the configuration says of it.
    ``gateway``: the host we connect through ourselves, or None. ``known_hosts``: files that vouch
    for host keys, under ``alias`` where there is one; the first is where `trust` writes.
    """

    host: str
    port: int
    user: str
    keys: tuple[Path, ...]
    certificates: tuple[Path, ...]
    only_keys: bool
    agent: Path | None
    agent_note: str
    proxy: str | None
    known_hosts: tuple[Path, ...]
    gateway: SshSettings | None = None
    alias: str | None = None

    @property
    def host_name(self) -> str:
        """How known_hosts writes it."""
        if self.alias is not None:
            return self.alias  # without the port, as OpenSSH does
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"

    @property
    def address(self) -> str:
        """Whom we talk to, for people."""
        host = f"[{self.host}]" if ":" in self.host and self.port != 22 else self.host
        return f"{self.user}@{host}" + (f":{self.port}" if self.port != 22 else "")

    @property
    def through(self) -> str:
        """What lies between, for people; empty where nothing does."""
        if self.gateway is not None:
            return f" through gateway {self.gateway.host}"
        return f" through `{self.proxy}`" if self.proxy else ""


def resolve(
    settings: SshSettings, path: Path | None = None, read: Reader | None = None
) -> Endpoint:
    """Settings first, then OpenSSH's configuration (``path`` alone, if given), then its defaults.

    Honoured: HostName, Port, User, IdentityFile, CertificateFile, IdentitiesOnly, IdentityAgent,
    HostKeyAlias, UserKnownHostsFile, ProxyCommand, ProxyJump (through the ``ssh`` program),
    Include, Host and Match. Whatever else stands there is ignored, StrictHostKeyChecking above
    all. ``ssh -G`` is asked where there is an ``ssh``; ``read``: another reader.

    Raises InputError E-SSH-CONFIG for a file that cannot be understood.
    """
    found: Mapping[str, list[str]] = {}
    if settings.config:
        found = (read or reader())(settings, path)
    host = _one(found, "hostname") or settings.host
    port = _port(_one(found, "port") or str(settings.port or 22))
    user = _one(found, "user") or settings.user or getpass.getuser()
    alias = _one(found, "hostkeyalias")
    values = ssh_tokens.tokens(
        settings.host, host, str(port), user, alias, _digest(_one(found, "controlpath"))
    )
    named = [Path(settings.key).expanduser()] if settings.key else []
    agent, note = _agent(settings, _one(found, "identityagent"))
    try:
        keys = [ssh_tokens.path(name, values) for name in _named(found, "identityfile")]
        certificates = [ssh_tokens.path(c, values) for c in _named(found, "certificatefile")]
        proxy = None if settings.jump else _proxy(found, values, path)
    except ValueError as error:
        raise InputError("E-SSH-CONFIG", str(error), where=str(path or _FILE)) from error
    if not found and not named:
        keys = [Path(name).expanduser() for name in ssh_config_file.DEFAULT_KEYS]
    return Endpoint(
        host=host,
        port=port,
        user=user,
        keys=(*named, *keys),
        certificates=tuple(certificates),
        only_keys=_one(found, "identitiesonly") == "yes",
        agent=agent,
        agent_note=note,
        proxy=proxy,
        known_hosts=_known_hosts(settings, found),
        gateway=gateway(settings),
        alias=alias,
    )


def reader() -> Reader:
    """OpenSSH's own where it is installed."""
    return ssh_config_program.read if ssh_config_program.usable() else ssh_config_file.read


def gateway(settings: SshSettings) -> SshSettings | None:
    """The last host of ``jump`` on the way to the device, itself behind those before it.

    Raises InputError E-SSH-CONFIG for a port that there cannot be.
    """
    if settings.jump is None:
        return None
    *before, last = settings.jump.split(",")
    user, _, place = last.rpartition("@")
    name, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    return settings.model_copy(
        update={
            "host": (name if colon else place).strip("[]"),
            "port": _port(port) if colon else None,
            "user": user or None,
            "jump": ",".join(before) or None,
        }
    )


def hops(settings: SshSettings) -> list[SshSettings]:
    """The gateways in the order in which they are met, then the device itself."""
    nearer = gateway(settings)
    return [*(hops(nearer) if nearer else []), settings]


def _one(found: Mapping[str, list[str]], keyword: str) -> str | None:
    return next(iter(found.get(keyword, [])), None)


def _named(found: Mapping[str, list[str]], keyword: str) -> list[str]:
    return [name for name in found.get(keyword, []) if name.lower() != "none"]


def _digest(printed: str | None) -> str | None:
    """What ``%C`` stands for; a reader may not know it."""
    return printed.rpartition("/")[2] if printed else None


def _agent(settings: SshSettings, named: str | None) -> tuple[Path | None, str]:
    """Its socket and what is said about it when the login is refused."""
    if not settings.agent:
        return None, f"IdentityAgent {named} was not asked (`agent: false`)" if named else ""
    if named is not None and named.lower() == "none":
        return None, "no agent was asked (IdentityAgent none)"
    variable = "SSH_AUTH_SOCK" if named in (None, "SSH_AUTH_SOCK") else None
    if named is not None and named.startswith("$"):
        variable = named[1:]
    socket = os.environ.get(variable) if variable else named
    note = f"IdentityAgent {named}" if named else "the agent of SSH_AUTH_SOCK"
    if not socket:
        return None, f"{note} is not set" if named else ""
    return Path(socket), note


def _known_hosts(settings: SshSettings, found: Mapping[str, list[str]]) -> tuple[Path, ...]:
    if settings.known_hosts:
        return (Path(settings.known_hosts).expanduser(),)
    # Whoever checks no keys names these; keys are checked here all the same.
    names = [n for n in found.get("userknownhostsfile", []) if n not in ("none", "/dev/null")]
    return tuple(Path(name).expanduser() for name in names or ["~/.ssh/known_hosts"])


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise InputError("E-SSH-CONFIG", f"Port {text!r} is not a port", where=_FILE)
    return int(text)


def _proxy(
    found: Mapping[str, list[str]], values: Mapping[str, str], path: Path | None
) -> str | None:
    """The command for the shell. ValueError for what cannot be expanded."""
    values = {token: values[token] for token in ssh_tokens.PROXY}
    command, jump = _one(found, "proxycommand"), _one(found, "proxyjump")
    if command and command.lower() != "none":
        if _one(found, "proxyusefdpass") == "yes":
            raise ValueError("ProxyUseFdpass is not supported: use a command that stays in between")
        return ssh_tokens.expanded(command, values, variables=False)
    if jump and jump.lower() != "none":
        *first, last = ssh_tokens.expanded(jump, values, variables=False).split(",")
        config = ["-F", str(path)] if path else []
        via = ["-J", ",".join(first)] if first else []
        to = f"[{values['h']}]:{values['p']}"
        ssh = ["ssh", *config, "-o", "BatchMode=yes", *via, "-W", to, "--", _target(last)]
        return shlex.join(ssh)
    return None


def _target(jump: str) -> str:
    """``[user@]host[:port]`` as a URI, the form in which ssh takes a port with the host."""
    return jump if jump.startswith("ssh://") else f"ssh://{jump}"
