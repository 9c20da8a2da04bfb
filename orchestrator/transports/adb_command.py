"""Commands for adbd's one shell, and the line that says how each of them ended: pure.

``adb shell`` exits 0 when the link is cut (29.0.6; newer ones 255), so its exit status proves
nothing. The wrapper on the device prints the status itself, as the last words on stderr.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from orchestrator.errors import InputError
from orchestrator.transports import command

MAX_COMMAND = 60_000
"""Bytes. A request to the adb server has its length in four hexadecimal digits."""

# As over ssh, it prints its pid, which is also its process group: adbd calls setsid. No variable
# is set, since one of that name might be in the environment that is handed on.
_WRAPPER = """printf '%s:%s\\n' "$1" "$$"
(shift
case "$1" in -*) printf '%s: not found\\n' "$1" >&2; exit 127; esac
exec "$@")
printf '%s=%s\\n' "$1" "$?" >&2"""

PUSHED = """got=$(wc -c < "$1") || exit 12
spoilt() { rm -f -- "$1"; echo "$2" >&2; exit 13; }
if [ "$got" -ne "$3" ]; then
    free=$(df -Pk "$5" | { read -r head; read -r name blocks used free rest; echo "$free"; })
    [ "${free:-64}" -ge 64 ] || spoilt "$1" "No space left on device"
    spoilt "$1" "$got of $3 bytes"
fi
sum=$(sha256sum < "$1") || spoilt "$1" "no sha256 of it"
[ "${sum%% *}" = "$4" ] || spoilt "$1" "another sha256 than it had here"
[ ! -d "$2" ] || spoilt "$1" "$2: Is a directory"
mv -f -- "$1" "$2" || { rm -f -- "$1"; exit 14; }"""
"""After ``adb push``, which has been seen to end well on a full storage.

Arguments: temporary file, final file, size in bytes, sha256, folder.
"""


def quoted(argv: Sequence[str], env: Mapping[str, str] | None, nonce: str) -> str:
    """The command for adbd. Every word of ``argv`` and ``env`` arrives as it is."""
    command.check(argv, env)
    words = ["env", *(f"{k}={v}" for k, v in (env or {}).items())] if env else []
    line = "exec " + shlex.join([*words, "sh", "-c", _WRAPPER, "sh", nonce, *argv])
    size = len(line.encode(errors="surrogateescape"))
    if size > MAX_COMMAND:
        raise InputError("E-ARGV", f"a command of {size} bytes is too long for adb")
    return line


_DIGITS = 3
"""At most, of an exit status."""


class Trailer:
    """Takes the line ``nonce=status`` out of stderr, wherever the stream is cut."""

    def __init__(self, nonce: str) -> None:
        self._mark = nonce.encode() + b"="
        self._line = re.compile(re.escape(self._mark) + b"([0-9]{1,%d})\n" % _DIGITS)
        self._held = b""
        self.status: int | None = None

    def feed(self, data: bytes) -> bytes:
        """What may be passed on by now."""
        if self.status is not None:
            return data
        data, self._held = self._held + data, b""
        found = self._line.search(data)
        if found is not None:
            self.status = int(found[1])
            return data[: found.start()] + data[found.end() :]
        keep = self._begun(data)
        data, self._held = data[: len(data) - keep], data[len(data) - keep :]
        return data

    def rest(self) -> bytes:
        """At the end of the stream: what was held back and is no trailer."""
        data, self._held = self._held, b""
        return data

    def _begun(self, data: bytes) -> int:
        """Length of the longest end of ``data`` that a trailer may begin with."""
        longest = min(len(self._mark) + _DIGITS, len(data))
        return next((n for n in range(longest, 0, -1) if self._may_begin(data[-n:])), 0)

    def _may_begin(self, end: bytes) -> bool:
        status = end[len(self._mark) :]
        return self._mark.startswith(end) or (end.startswith(self._mark) and status.isdigit())
