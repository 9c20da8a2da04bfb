"""OpenSSH's configuration read here, for machines without an ``ssh`` to ask.

What decides where a connection goes is evaluated as OpenSSH does it, or refused by name:
a block is never applied, and none left out, because a word of it is not understood.
"""

from __future__ import annotations

import fnmatch
import getpass
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.transports import ssh_tokens
from orchestrator.transports.settings import SshSettings

DEFAULT_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_SYSTEM = Path("/etc/ssh/ssh_config")
_DEPTH = 16

_LISTS = {"identityfile", "certificatefile"}
_SINGLE = {"hostname", "port", "user", "identityagent", "hostkeyalias", "ignoreunknown"}
_PROXIES = {"proxycommand", "proxyjump"}
_FLAGS = {"identitiesonly", "proxyusefdpass"}
_REFUSED = {"canonicalizehostname": ("no", "none", "false")}
"""Keywords that are not evaluated here, and the values with which they change nothing."""

# Whatever else OpenSSH 10 knows: of no consequence to host and user.
_OTHERS = """
addkeystoagent addressfamily batchmode bindaddress bindinterface canonicaldomains
canonicalizefallbacklocal canonicalizemaxdots canonicalizepermittedcnames casignaturealgorithms
challengeresponseauthentication channeltimeout checkhostip cipher ciphers clearallforwardings
compression compressionlevel connectionattempts connecttimeout controlmaster controlpath
controlpersist dsaauthentication dynamicforward enableescapecommandline enablesshkeysign escapechar
exitonforwardfailure fingerprinthash forkafterauthentication forwardagent forwardx11
forwardx11timeout forwardx11trusted gatewayports globalknownhostsfile gssapiauthentication
gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange
gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns hashknownhosts
hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes hostkeyalgorithms ipqos
kbdinteractiveauthentication kbdinteractivedevices keepalive kexalgorithms knownhostscommand
localcommand localforward loglevel logverbose macs nohostauthenticationforlocalhost
numberofpasswordprompts obscurekeystroketiming passwordauthentication permitlocalcommand
permitremoteopen pkcs11provider preferredauthentications protocol pubkeyacceptedalgorithms
pubkeyacceptedkeytypes pubkeyauthentication refuseconnection rekeylimit remotecommand remoteforward
requesttty requiredrsasize revokedhostkeys rhostsrsaauthentication rsaauthentication
securitykeyprovider sendenv serveralivecountmax serveraliveinterval sessiontype setenv
skeyauthentication smartcarddevice stdinnull streamlocalbindmask streamlocalbindunlink
stricthostkeychecking syslogfacility tag tcpkeepalive tunnel tunneldevice updatehostkeys
usekeychain useprivilegedport usersh verifyhostkeydns versionaddendum visualhostkey
warnweakcrypto xauthlocation
"""
_IGNORED = frozenset(_OTHERS.split())


class _BadLineError(ValueError):
    """What is wrong with the line that is being read."""


def read(settings: SshSettings, path: Path | None) -> dict[str, list[str]]:
    """As ``ssh_config_program.read``, in the same form."""
    home = Path.home() / ".ssh"
    files = [(path, home)] if path else [(home / "config", home), (_SYSTEM, _SYSTEM.parent)]
    reading = _Reading(settings)
    for final in (False, True):
        reading.final = final
        for file, folder in files:
            if path is not None or file.is_file():
                reading.file(file, folder, active=True)
        if not reading.wants_final:
            break
    try:
        return reading.found()
    except ValueError as error:
        raise _refused(str(error), str(files[0][0])) from error


def words(text: str) -> list[str]:
    """A line's arguments: quotes and backslashes resolved, a comment left out. ValueError."""
    found: list[str] = []
    word: str | None = None
    quote, chars = "", iter(text)
    for char in chars:
        if char == "\\":
            following = next(chars, "")
            literal = following in ("'", '"', "\\") or (following == " " and not quote)
            word = (word or "") + (following if literal and following else char + following)
        elif quote:
            quote, word = ("", word) if char == quote else (quote, (word or "") + char)
        elif char in "\"'":
            quote, word = char, word or ""
        elif char in " \t":
            found += [word] if word is not None else []
            word = None
        elif char == "#" and word is None:
            break
        else:
            word = (word or "") + char
    if quote:
        raise _BadLineError("invalid quotes")
    return found + ([word] if word is not None else [])


def matches(pattern: str, text: str) -> bool:
    """Only ``*`` and ``?`` are special."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def any_of(patterns: Iterable[str], text: str) -> bool:
    """Whether one matches and none that begins with ``!`` does."""
    hits = [p for p in patterns if matches(p.removeprefix("!"), text)]
    return bool(hits) and not any(p.startswith("!") for p in hits)


class _Reading:
    """First value wins. What the inventory gives stands before the first line."""

    def __init__(self, settings: SshSettings) -> None:
        self._given, self._has_key = settings.host, settings.key is not None
        self._values: dict[str, list[str]] = {}
        if settings.port:
            self._values["port"] = [str(settings.port)]
        if settings.user:
            self._values["user"] = [settings.user]
        self.final = self.wants_final = False

    def file(self, file: Path, folder: Path, *, active: bool, depth: int = 0) -> None:
        """Raises InputError E-SSH-CONFIG. ``active``: whether blocks in it can match at all."""
        try:
            text = file.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise _refused(error.strerror or str(error), str(file)) from error
        block = active
        for number, line in enumerate(text.split("\n"), 1):
            try:
                keyword, rest = _split(line)
                match keyword:
                    case "":
                        continue
                    case "host":
                        block = active and self._host(_some(keyword, rest))
                    case "match":
                        block = active and self._match(_some(keyword, rest))
                    case "include":
                        if depth == _DEPTH:
                            raise _BadLineError("too many recursive includes")
                        for included in _files(_some(keyword, rest), folder):
                            self.file(included, folder, active=block, depth=depth + 1)
                    case _:
                        self._keyword(keyword, rest, active=block)
            except ValueError as error:
                raise _refused(str(error), f"{file}:{number}") from error

    def found(self) -> dict[str, list[str]]:
        """Everything with its defaults and what OpenSSH expands. ValueError."""
        found = dict(self._values)
        found.setdefault("port", ["22"])
        found.setdefault("user", [getpass.getuser()])
        found["hostname"] = [self._host_name().lower()]
        if not self._has_key:
            found.setdefault("identityfile", list(DEFAULT_KEYS))
        found.setdefault("userknownhostsfile", ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"])
        (host,), (port,), (user,) = found["hostname"], found["port"], found["user"]
        alias = found.get("hostkeyalias", [None])[0]
        values = ssh_tokens.tokens(self._given, host, port, user, alias)
        for keyword in found.keys() & {"userknownhostsfile", "identityagent"}:
            found[keyword] = [
                # A $VARIABLE is looked up when the agent is asked.
                v if v.startswith("$") and v[1:2] != "{" else str(ssh_tokens.path(v, values))
                for v in found[keyword]
            ]
        return found

    def _host_name(self) -> str:
        (pattern,) = self._values.get("hostname", ["%h"])
        return ssh_tokens.expanded(pattern, {"h": self._given}, variables=False)

    def _host(self, patterns: Sequence[str]) -> bool:
        return any_of(patterns, self._given)

    def _match(self, said: Sequence[str]) -> bool:
        """Criteria after one that failed need not be understood."""
        criteria = list(_criteria(said))
        names = {name for name, *_ in criteria}
        if "all" in names and names - {"all", "canonical", "final"}:
            raise _BadLineError("'all' cannot be combined with other Match attributes")
        fulfilled = True
        for name, negated, argument in criteria:
            self.wants_final = self.wants_final or name == "final"
            fulfilled = fulfilled and self._fulfilled(name, argument) is not negated
        return fulfilled

    def _fulfilled(self, name: str, argument: str) -> bool:
        patterns = argument.split(",")
        match name:
            case "all":
                return True
            case "canonical" | "final":
                return self.final
            case "host":
                return any_of([p.lower() for p in patterns], self._host_name().lower())
            case "originalhost":
                return any_of([p.lower() for p in patterns], self._given.lower())
            case "user":
                return any_of(patterns, self._values.get("user", [getpass.getuser()])[0])
            case "localuser":
                return any_of(patterns, getpass.getuser())
            case _:
                raise _BadLineError(f"Match {name} is not evaluated without the ssh program")

    def _keyword(self, keyword: str, rest: str, *, active: bool) -> None:
        # The rest of the line is for a shell: quotes and # are its business.
        values = [rest] if keyword == "proxycommand" and rest else _some(keyword, rest)
        known = {*_LISTS, *_SINGLE, *_FLAGS, *_REFUSED, *_PROXIES, "userknownhostsfile"}
        if keyword not in known | _IGNORED:
            ignored = self._values.get("ignoreunknown", [""])[0].lower().split(",")
            if not any_of(ignored, keyword):
                raise _BadLineError(f"bad configuration option: {keyword}")
            return
        if keyword in _IGNORED:
            return
        if keyword not in ("userknownhostsfile", "proxycommand") and len(values) > 1:
            raise _BadLineError(f"keyword {keyword} has extra arguments at end of line")
        if keyword in _FLAGS:
            values = [_flag(values[0])]
        elif keyword == "port":
            values = [_port(values[0])]
        elif keyword == "hostkeyalias":
            values = [values[0].lower()]
        if not active:
            return
        if keyword in _REFUSED and values[0].lower() not in _REFUSED[keyword]:
            raise _BadLineError(f"{keyword} {values[0]} is not evaluated without the ssh program")
        self._keep(keyword, values)

    def _keep(self, keyword: str, values: list[str]) -> None:
        kept = self._values
        if keyword in _LISTS:
            so_far = kept.setdefault(keyword, [])
            so_far += [value for value in values if value not in so_far]
            return
        # Of these two the first counts, except a jump through nobody.
        jumps = kept.get("proxyjump", ["none"])[0].lower() != "none"
        if (keyword == "proxycommand" and jumps) or (
            keyword == "proxyjump" and "proxycommand" in kept
        ):
            return
        kept.setdefault(keyword, values)


def _split(line: str) -> tuple[str, str]:
    """Keyword in lower case and the rest; empty for a blank line or a comment."""
    line = line.strip(" \t\r\f\v")
    match = re.fullmatch(r'"?([^\s="#]+)"?(?:\s*=\s*|\s+|$)(.*)', line, re.DOTALL)
    if not line or line.startswith("#"):
        return "", ""
    if match is None:
        raise _BadLineError(f"not a keyword: {line[:40]}")
    return match[1].lower(), match[2]


def _some(keyword: str, rest: str) -> list[str]:
    found = words(rest)
    if not found or not found[0]:
        raise _BadLineError(f'no argument after keyword "{keyword}"')
    return found


def _criteria(said: Sequence[str]) -> Iterator[tuple[str, bool, str]]:
    """Name, whether it is negated, argument. ValueError."""
    rest = list(said)
    while rest:
        name, equals, argument = rest.pop(0).partition("=")
        negated, name = name.startswith("!"), name.removeprefix("!").lower()
        if name not in ("all", "canonical", "final") and not equals:
            if not rest:
                raise _BadLineError(f"missing argument of Match {name}")
            argument = rest.pop(0)
        yield name, negated, argument


def _files(names: Iterable[str], folder: Path) -> Iterator[Path]:
    for name in names:
        pattern = folder / Path(name).expanduser()
        for file in sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))):
            if file.is_file():
                yield file


def _flag(value: str) -> str:
    flags = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
    if value.lower() not in flags:
        raise _BadLineError(f'unsupported option "{value}"')
    return flags[value.lower()]


def _port(value: str) -> str:
    try:
        number = int(value) if value.isascii() and value.isdigit() else socket.getservbyname(value)
    except OSError:
        number = 0
    if not 0 < number < 65536:
        raise _BadLineError(f"bad port '{value}'")
    return str(number)


def _refused(what: str, where: str) -> InputError:
    return InputError("E-SSH-CONFIG", what, where=where, fix="or set `config: false`")
