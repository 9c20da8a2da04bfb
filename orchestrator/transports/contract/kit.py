"""What the checks of this package are made of."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from orchestrator.errors import AssayError
from orchestrator.transports.base import Channel, Completed, Transport

PATIENCE = 30.0
"""Seconds for anything that is not itself a test of a deadline; emulated boards are slow."""

NASTY = (
    "", " ", "two words", " lead and trail ", "'", '"', "it's \"both\"", "`id`", "$(id)", "$HOME",
    "${x:-y}", "\\", "\\n", "new\nline", "\n", "tab\t", "*", "?", "[a-z]", "~", "~root", "!", "!!",
    "#no comment", "a;b", "a&b", "a|b", "a>b", "a<b", "(", ")", "{a,b}", "-", "--", "-n", "-rf",
    "--help", "%s%n", "a=b", "\u00e9\u6f22\U0001f980", "\x01\x1b[31m\x7f", "\r\n", "^", ":", "end ",
)  # fmt: skip
"""Words that some shell somewhere would take for more than words."""


class ContractError(AssertionError):
    """A transport did something else than the contract says."""


@dataclass(frozen=True)
class Check:
    """``run`` raises ContractError, or whatever the transport raised when it should not have.

    ``scratch`` is a folder on the device for this check alone; it need not exist yet.
    """

    name: str
    run: Callable[[Transport, PurePosixPath], None]


CheckFunction: TypeAlias = Callable[[Transport, PurePosixPath], None]


def checks(*functions: CheckFunction) -> tuple[Check, ...]:
    return tuple(Check(f.__name__, f) for f in functions)


def expect(what: str, got: object, want: object) -> None:
    if got != want:
        raise ContractError(f"{what}: expected {want!r:.300}, got {got!r:.300}")


def ensure(holds: bool, what: str) -> None:
    if not holds:
        raise ContractError(what)


@contextmanager
def raises(kind: type[AssayError], id: str, within: float = PATIENCE) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    except AssayError as error:
        ensure(isinstance(error, kind), f"expected {kind.__name__}, got {error!r}")
        expect("error id", error.id, id)
        took = time.monotonic() - start
        ensure(took < within, f"{id} came only after {took:.1f} s")
        return
    raise ContractError(f"expected {id}, nothing was raised")


def sh(t: Transport, script: str, *arguments: str, timeout: float = PATIENCE) -> Completed:
    return t.run(["sh", "-c", script, "sh", *arguments], timeout=timeout)


def ticker(scratch: PurePosixPath) -> list[str]:
    """A process and a child of it that both show they live by letting a file grow."""
    script = (
        'mkdir -p "$1" && cd "$1" && echo up; (while :; do echo x >> child; sleep 0.1; done) & '
        "while :; do echo x >> parent; sleep 0.1; done"
    )
    return ["sh", "-c", script, "sh", str(scratch)]


def expect_stopped(t: Transport, scratch: PurePosixPath) -> None:
    sizes = 'cd "$1" && wc -c < parent && wc -c < child'
    before = sh(t, sizes + "; sleep 1; " + sizes, str(scratch)).stdout.split()
    expect("number of files that grew", len(before), 4)
    expect("size of what a killed process writes", before[2:], before[:2])


@contextmanager
def local_files(size: int = 0) -> Iterator[tuple[Path, Path]]:
    """A local file of ``size`` random bytes, and a name beside it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.write_bytes(secrets.token_bytes(size))
        yield source, Path(folder) / "back"


def round_trip(t: Transport, target: PurePosixPath, size: int) -> None:
    with local_files(size) as (source, back):
        t.push(source, target, timeout=PATIENCE)
        t.pull(target, back, timeout=PATIENCE)
        want, got = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (source, back))
        expect(f"sha256 of {size} bytes after push and pull", got, want)


def line_of(channel: Channel) -> bytes | None:
    return channel.read_line(PATIENCE)


def names_in(t: Transport, folder: PurePosixPath) -> list[str]:
    return sh(t, 'ls -A "$1"', str(folder)).stdout.decode().split()
