"""What a device says of itself at rest, over any transport, with nothing but its shell and `head`.

All sources are asked in one round trip. Where one of them hangs, each is asked
alone, so that only the hanging one is unknown.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from device_worker.telemetry.parsers import Raw, Value
from device_worker.telemetry.plausible import Doubts, believed, understood
from orchestrator.errors import DeadlineError, InfraError
from orchestrator.matrix.device_class import SourceSpec
from orchestrator.transports.base import Transport

SCRIPT = r"""n=$1; shift
PATH=$PATH:/usr/sbin:/sbin:/system/bin:/vendor/bin:/opt/vc/bin LC_ALL=C; export PATH LC_ALL
while [ "$#" -gt 1 ]; do
case $1 in
s) printf '\n%s s %s\n' "$n" "$2";;
f) IFS=; set +f
for p in $2; do
[ -f "$p" ] || continue
printf '\n%s f %s\n' "$n" "$p"; { head -c 65536 < "$p"; } 2>/dev/null
printf '\n%s = %s\n' "$n" "$?"
done;;
c) IFS='
'; set -f
printf '\n%s c \n' "$n"
{ $2 </dev/null 2>/dev/null; printf '\n%s = %s\n' "$n" "$?"; } | head -c 262144;;
esac
shift 2
done"""
"""Arguments: a nonce, then pairs: ``s`` number (a source begins), ``f`` glob, ``c`` words joined by
newlines. An empty IFS leaves globbing and no splitting; ``set -f`` and a newline, the reverse: so
no word of an argument is ever read as shell text. Holds for dash, bash, busybox, mksh/toybox."""


@dataclass(frozen=True)
class Fact:
    """``source``: the file or command that told it, or that should have. None: not known."""

    name: str
    value: Value
    source: str


@dataclass(frozen=True)
class Facts:
    """Each fact once, in the order of the sources. ``silent``: sources that told nothing.

    ``doubts``: why a reading among them is unknown though its sensor said something.
    """

    facts: tuple[Fact, ...]
    silent: tuple[str, ...] = ()
    doubts: Doubts = field(default_factory=dict)

    def values(self) -> dict[str, Value]:
        """Name to value: JSON data."""
        return {fact.name: fact.value for fact in self.facts}

    def get(self, name: str) -> Value:
        """The fact's value; None when it is not known or the class does not ask for it."""
        return next((fact.value for fact in self.facts if fact.name == name), None)


def read_facts(transport: Transport, sources: Sequence[SourceSpec], *, timeout: float) -> Facts:
    """What the sources tell, over an open transport, in at most about ``timeout`` seconds.

    Raises InfraError E-FACTS when the device has no usable shell, and what the transport raises
    for a broken link (E-LINK, E-DEADLINE).
    """
    end = time.monotonic() + timeout
    raws: Sequence[Raw | None]
    try:
        raws = _ask(transport, sources, timeout / 2)
    except DeadlineError:
        transport.ping(timeout=max(1.0, (end - time.monotonic()) / 2))
        raws = [_alone(transport, source, end) for source in sources]
    return collect(zip(sources, raws, strict=True))


def collect(answers: Iterable[tuple[SourceSpec, Raw | None]]) -> Facts:
    """Facts out of raw texts; of several sources the first that knows a fact counts."""
    found: dict[str, Fact] = {}
    silent: list[str] = []
    doubts: Doubts = {}
    for source, raw in answers:
        told, unclear = understood(source.parser, raw or {}, source.units)
        doubts |= unclear
        label = _label(source, raw)
        if all(value is None for value in told.values()):
            silent.append(label)
        for name, value in told.items():
            if name not in found or (found[name].value is None and value is not None):
                found[name] = Fact(name, value, label)
    values, more = believed({name: fact.value for name, fact in found.items()})
    facts = tuple(replace(fact, value=values[name]) for name, fact in found.items())
    doubts = {name: why for name, why in (doubts | more).items() if values.get(name) is None}
    return Facts(facts, tuple(silent), doubts)


def _label(source: SourceSpec, raw: Raw | None) -> str:
    """The command, the one file that was read, or the globs that were looked for."""
    if source.command:
        return " ".join(source.command)
    read = [path for path, text in (raw or {}).items() if text is not None]
    return read[0] if len(read) == 1 else ", ".join(source.path)


def _alone(transport: Transport, source: SourceSpec, end: float) -> Raw | None:
    left = end - time.monotonic()
    if left <= 0:
        return None
    try:
        return _ask(transport, [source], min(source.timeout, left))[0]
    except DeadlineError:
        return None


def _ask(transport: Transport, sources: Sequence[SourceSpec], timeout: float) -> list[Raw]:
    nonce = secrets.token_hex(12)
    done = transport.run(["sh", "-c", SCRIPT, "sh", nonce, *arguments(sources)], timeout=timeout)
    try:
        return parsed(done.stdout, nonce, len(sources))
    except ValueError:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise InfraError(
            "E-FACTS",
            f"the device's shell ended with {done.returncode}: {said or 'it said nothing'}",
            fix="see whether `sh`, `printf` and `head -c` work there",
            retryable=False,
        ) from None


def arguments(sources: Sequence[SourceSpec]) -> list[str]:
    """SCRIPT's arguments after the nonce."""
    words: list[str] = []
    for number, source in enumerate(sources):
        words += ["s", str(number)]
        for path in source.path:
            words += ["f", path]
        if source.command:
            words += ["c", "\n".join(source.command)]
    return words


def parsed(output: bytes, nonce: str, count: int) -> list[Raw]:
    """Per source its texts by path ("" for a command), None for what ended with an error.

    Raises ValueError unless every source was come to.
    """
    found: list[dict[str, str | None]] = [{} for _ in range(count)]
    seen, path, text = 0, None, ""
    for part in output.split(b"\n" + nonce.encode() + b" ")[1:]:
        head, _, body = part.partition(b"\n")
        kind, _, rest = head.decode(errors="surrogateescape").partition(" ")
        if kind == "s":
            if rest != str(seen):
                raise ValueError(rest)
            seen, path = seen + 1, None
        elif kind in ("f", "c") and seen:
            path, text = rest, body.decode(errors="replace")
            found[seen - 1][path] = None  # until its end says that it was read
        elif kind == "=" and path is not None:
            found[seen - 1][path] = text if rest == "0" else None
            path = None
    if seen != count:
        raise ValueError(f"{seen} of {count} sources")
    return [dict(raw) for raw in found]
