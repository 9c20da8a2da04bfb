"""The errors every transport raises, worded once."""

from __future__ import annotations

import re

from orchestrator.errors import DeadlineError, InfraError, InputError
from orchestrator.transports.base import MAX_LINE

NO_PLAIN_FILE = "it is no plain file"
_CAUSE = re.compile(
    r"could ?n[o']t|cannot|can't|fail|error|fatal|denied|in use|refused|no space left|bad_alloc"
    r"|too many open files|temporarily unavailable|terminate called|killed|no such file",
    re.IGNORECASE,
)


def cause(said: str) -> str | None:
    """Of all that a program says or logs which does not start, the last line that tells why."""
    lines = [" ".join(line.split()) for line in said.splitlines() if _CAUSE.search(line)]
    return lines[-1][-300:] if lines else None


def last_words(said: str) -> str:
    """`cause`, else the last line that there is."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    return cause(said) or (lines[-1][:300] if lines else "it does not say why")


def link_down(device: str, why: object) -> InfraError:
    return InfraError(
        "E-LINK",
        f"the link to {device} is down: {str(why) or type(why).__name__}",
        fix="check its power and network",
    )


def deadline(device: str, what: str, seconds: float, note: str = "") -> DeadlineError:
    return DeadlineError(
        "E-DEADLINE",
        f"{device}: {what} did not end within {seconds:g} s{note}",
        fix="raise the timeout if the device is only slow",
    )


def silence(device: str, seconds: float) -> DeadlineError:
    return DeadlineError(
        "E-SILENCE",
        f"{device}: no line from the worker for {seconds:g} s",
        fix="the device or its link hangs; raise the silence timeout if it is only slow",
    )


def line_too_long(device: str) -> InfraError:
    return InfraError(
        "E-WORKER-GARBAGE",
        f"{device}: the worker sent a line of more than {MAX_LINE} bytes",
        fix="something other than the worker writes to its stdout; see its stderr in the log",
    )


def not_reading(device: str, seconds: float) -> InfraError:
    return InfraError(
        "E-LINK", f"the link to {device} is down: nothing sent was taken for {seconds:g} s"
    )


def disk_full(device: str, path: object) -> InfraError:
    return InfraError(
        "E-DISK-FULL",
        f"{device}: no space left for {path}",
        fix="free space on the device or give it another root",
        retryable=False,
    )


def permission(device: str, path: object, why: str = "permission denied") -> InfraError:
    return InfraError(
        "E-REMOTE-PERMISSION",
        f"{device}: {path}: {why}",
        fix="give the device a root its user may write to",
        retryable=False,
    )


def missing(device: str, path: object) -> InfraError:
    return InfraError("E-REMOTE-MISSING", f"{device}: {path} does not exist", retryable=False)


def transfer(device: str, path: object, why: str) -> InfraError:
    return InfraError("E-TRANSFER", f"{device}: copying {path} failed: {why}")


def no_plain_file(device: str, path: object) -> InfraError:
    return transfer(device, path, NO_PLAIN_FILE)


def too_large(device: str, path: object, limit: int) -> InfraError:
    return transfer(device, path, f"it has more than the {limit} bytes that were announced")


def size_changed(device: str, path: object) -> InfraError:
    return transfer(device, path, "its size changed meanwhile")


def local_file(path: object, error: OSError) -> InputError:
    return InputError("E-LOCAL-FILE", f"{path}: {error.strerror or error}")


def from_reason(device: str, path: object, message: str) -> InfraError:
    """What a tool on the device said (C locale), judged by its last words.

    Only what follows the last colon counts: before it stands the file name, which is free text.
    """
    reason = message.strip().rpartition("\n")[2].rpartition(": ")[2]
    word = reason.lower()
    if "no space left" in word or "quota exceeded" in word:
        return disk_full(device, path)
    if "no such file" in word or "nonexistent" in word or "not a directory" in word:
        return missing(device, path)
    if "permission denied" in word or "read-only" in word or "not permitted" in word:
        return permission(device, path, reason)
    return transfer(device, path, message)
