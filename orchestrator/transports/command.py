"""Argument lists on their way through the one shell that sshd forces on us.

sshd hands a single string to the login shell, so each word is quoted; the scripts below are
constants and get paths as arguments, never as text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from orchestrator.errors import InputError

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

PLAIN = {"LC_ALL": "C"}
"""For commands whose words we judge (``failures.from_reason``)."""

MAX_COMMAND = 128 * 1024 - 1
"""Linux limits one argument (here: the shell's ``-c`` string) to 128 KiB with its NUL."""

# Prints a nonce and its own pid, which under sshd is also its process group: whatever a chatty
# login script prints comes before the nonce, and the group can be killed later. The subshell
# keeps sh as parent, so that death by a signal is reported as 128 + signal, which paramiko
# would not tell. `exec` and not plain "$@": a builtin must not stand in for a program.
# A shell may take a leading dash for an option of `exec`, and not all know `exec --`.
_WRAPPER = """printf '%s:%s\\n' "$1" "$$"; shift
case "$1" in -*) printf '%s: not found\\n' "$1" >&2; exit 127; esac
(exec "$@"); exit "$?" """

KILL = """[ -z "$1" ] || kill -s KILL -- "-$1" || kill -s KILL -- "$1"
[ -z "$2" ] || rm -f -- "$2" """
"""Arguments, each may be empty: pid of a group's leader, half-written file to remove."""

ROOT = """cd; mkdir -p -- "$1" && cd -- "$1" && pwd -P"""

PUSH = """mkdir -p -- "$1" || exit 11
cat > "$2" || { rm -f -- "$2"; exit 12; }
got=$(wc -c < "$2"); [ "$got" -eq "$4" ] || { rm -f -- "$2"; echo "$got of $4 bytes" >&2; exit 13; }
[ ! -d "$3" ] || { rm -f -- "$2"; echo "$3: Is a directory" >&2; exit 14; }
mv -f -- "$2" "$3" || { rm -f -- "$2"; exit 14; }"""
"""Arguments: folder, temporary file, final file, size in bytes. Data on stdin."""

PULL = """wc -c < "$1" || exit 21; exec cat < "$1" """
"""Argument: file. Its size, a newline, its bytes."""


def check(argv: Sequence[str], env: Mapping[str, str] | None) -> None:
    """InputError E-ARGV for what no operating system can pass to a program."""
    if not argv or not argv[0]:
        raise InputError("E-ARGV", "no program to run")
    for word in [*argv, *(env or {}).values()]:
        if "\0" in word:
            raise InputError("E-ARGV", f"an argument holds a NUL byte: {word[:40]!r}")
    for name in env or {}:
        if not _ENV_NAME.match(name):
            raise InputError("E-ARGV", f"not a name for an environment variable: {name[:40]!r}")


def quoted(argv: Sequence[str], env: Mapping[str, str] | None, nonce: str) -> str:
    """The command for sshd. Every word of ``argv`` and ``env`` arrives as it is."""
    check(argv, env)
    words = ["env", *(f"{k}={v}" for k, v in (env or {}).items())] if env else []
    command = shlex.join([*words, "sh", "-c", _WRAPPER, "sh", nonce, *argv])
    if len(command.encode(errors="surrogateescape")) > MAX_COMMAND - len("exec "):
        raise InputError("E-ARGV", f"a command of {len(command)} characters is too long for ssh")
    return "exec " + command


class Prelude:
    """Finds ``nonce:pid`` at the head of stdout and gives back what follows."""

    LIMIT = 64 * 1024

    def __init__(self, nonce: str) -> None:
        self._mark = nonce.encode() + b":"
        self._seen = b""
        self.pid: int | None = None

    @property
    def noise(self) -> str:
        """The last line that came instead of the nonce."""
        return self._seen.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]

    def feed(self, data: bytes) -> bytes:
        """Data after the prelude; empty as long as it is not complete.

        Raises ValueError when LIMIT bytes passed without it.
        """
        if self.pid is not None:
            return data
        self._seen += data
        start = self._seen.find(self._mark)
        end = self._seen.find(b"\n", start) if start >= 0 else -1
        if end < 0:
            if len(self._seen) > self.LIMIT:
                raise ValueError("the login scripts print without end")
            return b""
        self.pid = int(self._seen[start + len(self._mark) : end])
        rest, self._seen = self._seen[end + 1 :], b""
        return rest


def script(text: str, *arguments: object) -> list[str]:
    """One of the scripts above as an argument list."""
    return ["sh", "-c", text, "sh", *map(str, arguments)]
