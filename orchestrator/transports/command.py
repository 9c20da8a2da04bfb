"""Argument lists on their way through the one shell that sshd forces on us.

sshd hands a single string to the login shell, so each word is quoted; the scripts below are
constants and get paths as arguments, never as text.
"""

from __future__ import annotations

import re
import shlex
import string
from collections.abc import Mapping, Sequence

from orchestrator.errors import InputError
from orchestrator.transports.lines import shown

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

PLAIN = {"LC_ALL": "C"}
"""For commands whose words we judge (``failures.from_reason``)."""

MAX_COMMAND = 128 * 1024 - 1
"""Linux limits one argument (here: the shell's ``-c`` string) to 128 KiB with its NUL."""

# Prints a nonce and its own pid, which under sshd is also its process group: whatever a chatty
# login script prints comes before the nonce, on either stream, and the group can be killed later.
# On stderr first: where a login script joins the streams, both lines come before the output.
# The subshell keeps sh as parent, so that death by a signal is reported as 128 + signal, which
# paramiko would not tell. `exec` and not plain "$@": a builtin must not stand in for a program.
# A shell may take a leading dash for an option of `exec`, and not all know `exec --`.
_WRAPPER = """printf '%s;%s\\n' "$1" "$$" >&2; printf '%s:%s\\n' "$1" "$$"; shift
case "$1" in -*) printf '%s: not found\\n' "$1" >&2; exit 127; esac
(exec "$@"); exit "$?" """

# The login shell may be any: fish undoes backslashes in quotes, csh ends a word at a newline and
# replaces a ! in quotes. So it reads one line without these, and a POSIX sh the rest: the words
# that follow are the script, cut at _, each piece begun by a byte's value in octal. The backslash
# that printf wants is the first of them, since all shells hand on \\ outside quotes as one.
# It is put together in a subshell: no variable of it is in the way of the script's environment.
_DECODE = 'eval "$(IFS=_; set -f; b=$1; shift; set -- $*; printf %b "$(printf "$b${b}0%s" "$@")")"'
SAFE = string.ascii_letters + string.digits + "/.,:+-"
_PIECE = re.compile(rb"(.)([%s]{0,500})" % SAFE.encode(), re.DOTALL)

_WORD = 1000
"""Bytes: old csh allows no longer word."""

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

PULL = """if [ -L "$1" ] || { [ -e "$1" ] && [ ! -f "$1" ]; }; then
  echo "$1: it is no plain file" >&2; exit 22
fi
wc -c < "$1" || exit 21; exec cat < "$1" """
"""Argument: file. Its size, a newline, its bytes. A FIFO is not opened: nothing may ever come."""


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
    script = f"set -- {shlex.join([nonce, *words, *argv])}\n{_WRAPPER}"
    command = f"exec sh -c '{_DECODE}' sh \\\\ {encoded(script)}"
    if len(command) > MAX_COMMAND:
        raise InputError("E-ARGV", f"a command of {len(command)} characters is too long for ssh")
    return command


def encoded(script: str) -> str:
    """Words of letters, digits, ``_`` and ``/.,:+-``, which `_DECODE` makes ``script`` of."""
    lines: list[str] = []
    for match in _PIECE.finditer(script.encode(errors="surrogateescape")):
        piece = f"{match[1][0]:03o}{match[2].decode()}"
        if lines and len(lines[-1]) + len(piece) < _WORD:
            lines[-1] += f"_{piece}"
        else:
            lines.append(piece)
    return " ".join(lines)


class Prelude:
    """Finds the line with nonce and pid that begins a stream and gives back what follows it."""

    LIMIT = 64 * 1024

    def __init__(self, nonce: str, *, stderr: bool = False) -> None:
        self._mark = nonce.encode() + (b";" if stderr else b":")
        self._seen = b""
        self.pid: int | None = None

    @property
    def noise(self) -> str:
        """What came instead of the nonce: its end, on one line."""
        return shown(self._seen)

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
        pid = self._seen[start + len(self._mark) : end].strip()
        if not pid.isdigit():
            raise ValueError("its first line is not what was asked for")
        self.pid = int(pid)
        rest, self._seen = self._seen[end + 1 :], b""
        return rest


def script(text: str, *arguments: object) -> list[str]:
    """One of the scripts above as an argument list."""
    return ["sh", "-c", text, "sh", *map(str, arguments)]
