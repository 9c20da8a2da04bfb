"""Where an ssh device really is: its settings completed from ``~/.ssh/config``."""

from __future__ import annotations

import getpass
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.transports.settings import SshSettings

_DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_INCLUDE = re.compile(r"\s*include(?:\s*=\s*|\s+)(.+)", re.IGNORECASE)
_BLOCK = re.compile(r"\s*(?:host|match)(?:\s*=\s*|\s+)", re.IGNORECASE)


@dataclass(frozen=True)
class Endpoint:
    """``proxy``: argument list of a command whose stdin and stdout are the connection, or None.

    ``keys``: private key files to try in order; ``only_keys``: ask the agent for none but these.
    ``gateway``: through whom we connect ourselves, or None. ``known_hosts``: files that vouch for
    host keys, under ``alias`` where there is one; the first is where `trust` writes.
    """

    host: str
    port: int
    user: str
    keys: tuple[Path, ...]
    only_keys: bool
    agent: bool
    proxy: tuple[str, ...] | None
    known_hosts: tuple[Path, ...]
    gateway: SshSettings | None = None
    alias: str | None = None

    @property
    def host_name(self) -> str:
        """How known_hosts writes it."""
        if self.alias is not None:
            return self.alias  # without the port, as OpenSSH does
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


def resolve(settings: SshSettings, path: Path | None = None) -> Endpoint:
    """Settings first, then ``path`` (``~/.ssh/config``), then OpenSSH's defaults.

    Honoured: HostName, Port, User, IdentityFile, IdentitiesOnly, HostKeyAlias, UserKnownHostsFile,
    ProxyCommand (without a shell), ProxyJump (through the ``ssh`` program), Include, Host and Match
    patterns. Whatever else stands there is ignored, StrictHostKeyChecking above all.

    Raises InputError E-SSH-CONFIG for a file that cannot be understood.
    """
    found = _lookup(settings.host, path or Path("~/.ssh/config").expanduser(), settings.config)
    host = str(found.get("hostname", settings.host))
    port = settings.port or _port(found.get("port", "22"))
    named = [settings.key] if settings.key else []
    named += found.get("identityfile", [])
    return Endpoint(
        host=host,
        port=port,
        user=settings.user or found.get("user") or getpass.getuser(),
        keys=tuple(Path(k).expanduser() for k in (named or _DEFAULT_KEYS)),
        only_keys=found.get("identitiesonly", "no").lower() == "yes",
        agent=settings.agent,
        proxy=None if settings.jump else _proxy(found, host, port),
        known_hosts=_known_hosts(settings, found),
        gateway=gateway(settings),
        alias=found.get("hostkeyalias"),
    )


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


def _lookup(host: str, path: Path, wanted: bool) -> dict[str, Any]:
    if not wanted or not path.is_file():
        return {}
    import paramiko

    try:
        text = "\n".join(_lines(path))
        # Its own class, not dict: only the plain mapping is needed.
        return dict(paramiko.SSHConfig.from_text(text).lookup(host))
    except (OSError, UnicodeDecodeError, paramiko.SSHException, ImportError, ValueError) as error:
        raise InputError(
            "E-SSH-CONFIG", str(error), where=str(path), mend="or set `config: false`"
        ) from error


def _lines(path: Path, depth: int = 0) -> list[str]:
    """The file with its Includes put in place; after each, the block it stood in goes on."""
    block, lines = "Host *", []
    for line in path.read_text().splitlines():
        if _BLOCK.match(line):
            block = line
        include = _INCLUDE.match(line)
        if include is None or depth == 16:
            lines.append(line)
            continue
        for pattern in shlex.split(include[1]):
            where = Path("~/.ssh").expanduser() / Path(pattern).expanduser()
            for file in sorted(Path(where.anchor).glob(str(where.relative_to(where.anchor)))):
                if file.is_file():
                    lines += [*_lines(file, depth + 1), block]
    return lines


def _known_hosts(settings: SshSettings, found: dict[str, Any]) -> tuple[Path, ...]:
    if settings.known_hosts:
        return (Path(settings.known_hosts).expanduser(),)
    text = found.get("userknownhostsfile", "")
    if "%" in text or "${" in text or text.count('"') % 2:
        raise InputError(
            "E-SSH-CONFIG",
            f"UserKnownHostsFile {text}: tokens in it are not understood here",
            where="~/.ssh/config",
            mend="name the file as known_hosts of the device in the inventory",
        )
    names = shlex.split(text.replace("'", "\\'"))
    # Who checks nobody's key names these; keys are checked here all the same.
    files = [name for name in names if name not in ("none", "/dev/null")]
    return tuple(Path(name).expanduser() for name in files or ["~/.ssh/known_hosts"])


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise InputError("E-SSH-CONFIG", f"Port {text!r} is not a port", where="~/.ssh/config")
    return int(text)


def _proxy(found: dict[str, Any], host: str, port: int) -> tuple[str, ...] | None:
    command, jump = found.get("proxycommand"), found.get("proxyjump")
    if command:
        return tuple(shlex.split(command))
    if jump and jump.lower() != "none":
        *first, last = jump.split(",")
        via = ["-J", ",".join(first)] if first else []
        return ("ssh", "-o", "BatchMode=yes", *via, "-W", f"[{host}]:{port}", "--", _target(last))
    return None


def _target(jump: str) -> str:
    """``[user@]host[:port]`` as a URI, the form in which ssh takes a port with the host."""
    return jump if jump.startswith("ssh://") else f"ssh://{jump}"
