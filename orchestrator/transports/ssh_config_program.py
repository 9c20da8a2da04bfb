"""What OpenSSH itself makes of its configuration for a host: ``ssh -G`` does not connect."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.transports.lines import shown
from orchestrator.transports.settings import SshSettings

PATIENCE = 60.0
"""Seconds: only a command of ``Match exec`` or a name server takes more than a few milliseconds."""

_PLACE = re.compile(r"(.*?):? line (\d+): (.*)")
_NOISE = ("Pseudo-terminal will not", "terminating, ")
_INCLUDE = re.compile(r"(\s*include(?:\s*=\s*|\s+))(.+)", re.IGNORECASE)
_STDIN = "/dev/stdin"


def usable() -> bool:
    """Whether ``ssh`` is there and runs: not for a user without an entry in passwd."""
    return shutil.which("ssh") is not None and _passwd_home() is not None


def read(settings: SshSettings, path: Path | None) -> dict[str, list[str]]:
    """Values by keyword in lower case, files of identities and proxies unexpanded.

    ``path``: the one file to be read; None means the user's and the system's. Raises InputError
    E-SSH-CONFIG with file and line.
    """
    file, text, name = _file(path)
    command = ["ssh", "-G", *file]
    command += ["-p", str(settings.port)] if settings.port else []
    command += ["-l", settings.user] if settings.user else []
    # So that %C is known; and no keys are invented beside the one that the inventory names.
    command += ["-o", "ControlPath=%C", *(["-o", "IdentityFile=none"] if settings.key else [])]
    out = _output([*command, "--", settings.host], text, name)
    found: dict[str, list[str]] = {}
    for line in out.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword.lower(), []).append(value)
    files = _names(found.get("userknownhostsfile", [""])[0])
    found["userknownhostsfile"] = [_at_home(name) for name in files]
    for keyword in found.keys() & {"identityagent"}:
        found[keyword] = [_at_home(value) for value in found[keyword]]
    return found


def _names(printed: str) -> list[str]:
    """Names that are printed with a space between and no quotes, though one may have spaces."""
    return [name for name in re.split(r" (?=/|~|none\b)", printed) if name]


def _passwd_home() -> str | None:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None


def _file(path: Path | None) -> tuple[list[str], bytes, str]:
    """Options that name the file, what it is fed, and how an error calls it.

    Home is what $HOME says, while ssh goes by the entry in passwd. Where the two differ, ssh is
    given the file of ours, with the Includes in it that are meant to be below home made absolute.
    """
    if path is not None:
        return ["-F", str(path)], b"", str(path)
    ours, own = Path.home(), Path.home() / ".ssh" / "config"
    if str(ours) == _passwd_home():
        return [], b"", "~/.ssh/config"
    if not own.is_file():
        return ["-F", "none"], b"", str(own)
    lines = own.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    text = "\n".join(_INCLUDE.sub(_absolute, line) for line in lines)
    return ["-F", _STDIN], text.encode("utf-8", "surrogateescape"), str(own)


def _absolute(match: re.Match[str]) -> str:
    try:
        names = [Path(name).expanduser() for name in shlex.split(match[2], comments=True)]
    except (ValueError, RuntimeError):
        return match[0]  # ssh says what is wrong with it
    return match[1] + " ".join(f'"{Path.home() / ".ssh" / name}"' for name in names)


def _at_home(value: str) -> str:
    """A name that ssh expanded from ``~``, below the home that is meant."""
    there = _passwd_home()
    if there in (None, "/", str(Path.home())) or not value.startswith(f"{there}/"):
        return value
    return f"{Path.home()}{value.removeprefix(there)}"


def _output(command: list[str], text: bytes, file: str) -> str:
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # to end what Match exec started with it
    )
    try:
        out, err = process.communicate(text, PATIENCE)
    except subprocess.TimeoutExpired:
        raise InputError(
            "E-SSH-CONFIG",
            f"ssh -G gave no answer within {PATIENCE:g} s",
            where=file,
            fix="does a command of Match exec hang?",
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        raise _wrong(err.decode("utf-8", "replace").splitlines(), file, process.returncode)
    return out.decode("utf-8", "surrogateescape")


def _wrong(said: list[str], file: str, status: int) -> InputError:
    """The first complaint that names a line, and what was said before it."""
    lines = [line for line in said if line and not any(noise in line for noise in _NOISE)]
    before: list[str] = []
    where = file
    for line in lines:
        place = _PLACE.fullmatch(line)
        before.append(place[3] if place else line)
        if place:
            name = file if place[1] == _STDIN else place[1]
            where = f"{name}:{place[2]}"
            break
    what = shown(": ".join(reversed(before)), 400) or f"ssh -G ended with {status}"
    return InputError("E-SSH-CONFIG", what, where=where, fix="or set `config: false`")
