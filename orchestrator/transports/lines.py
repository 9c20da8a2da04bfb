"""Byte streams with a bound on what is held: lines of stdout, the tail of stderr."""

from __future__ import annotations

from orchestrator.transports.base import MAX_LINE

TAIL = 8192
"""Bytes of stderr that a channel keeps."""


class LineTooLongError(ValueError):
    """More than MAX_LINE bytes came without a newline."""


class LineBuffer:
    """Cuts a stream into lines, never holding more than one partial line of MAX_LINE bytes.

    Callers ask ``room()`` how much they may read next; whole lines must be taken before that.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0
        self._too_long = False

    def room(self) -> int:
        """Bytes that ``feed`` takes now: at least 1."""
        return MAX_LINE + 1 - len(self._data)

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self) -> bytes | None:
        """The next whole line, or None. LineTooLongError, from then on always."""
        if not self._too_long:
            end = self._data.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._data[:end])
                del self._data[: end + 1]
                self._searched = 0
                return line
            self._searched = len(self._data)
            if len(self._data) > MAX_LINE:
                self._too_long = True
                self._data.clear()
        if self._too_long:
            raise LineTooLongError
        return None

    def rest(self) -> bytes | None:
        """At end of stream: what stood after the last newline, once; None if nothing did."""
        line = bytes(self._data)
        self._data.clear()
        self._searched = 0
        return line or None


class Tail:
    """The last TAIL bytes of a stream."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        self._data += data[-TAIL:]
        del self._data[:-TAIL]

    def text(self) -> str:
        return self._data.decode("utf-8", "replace")


def shown(said: bytes | str, limit: int = 200) -> str:
    """What somebody said, for an error: its end, on one line, control characters spelt out."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    text = " / ".join(words for line in text.splitlines() if (words := line.strip()))
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= limit else "…" + text[-limit:]
