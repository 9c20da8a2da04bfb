"""What a worker may say: each message by its type, with the fields it has and what they hold.

Python 3.9 syntax, standard library only: this module is imported on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Dict, List, Optional

from device_worker.plain import WireError, decode
from device_worker.wire import coerce, load

MESSAGES: Dict[str, Dict[str, Any]] = {
    "hello": {
        "protocol": int,
        "pid": Optional[int],
        "python": Optional[str],
        "clock_unix": Optional[float],
        "worker_sha256": Optional[str],
    },
    "heartbeat": {"counter": Optional[int]},
    "pong": {"nonce": Optional[str]},
    "facts": {"environment": Dict[str, Any]},
    "sensors": {"reading": Dict[str, Any], "doubts": Optional[Dict[str, Any]]},
    "probed": {"delegate": Dict[str, Any]},
    "have": {"present": List[str]},
    "adopted": {},
    "progress": {
        "attempt": Optional[str],
        "phase": Optional[str],
        "done": Optional[int],
        "total": Optional[int],
    },
    "result": {"result": Dict[str, Any]},
    "content": {"files": Dict[str, str]},
    "forgotten": {},
    "done": {},
    "bye": {},
    "error": {
        "kind": Optional[str],
        "code": Optional[str],
        "what": Optional[str],
        "mend": Optional[str],
        "remembered": Optional[Dict[str, Any]],
        "holder": Optional[str],
    },
}
"""What a worker says: type -> its fields beside ``type`` and ``id``, as they are coerced."""

ANSWERS = {
    "ping": "pong",
    "facts": "facts",
    "sensors": "sensors",
    "probe": "probed",
    "have": "have",
    "adopt": "adopted",
    "run": "result",
    "batch": "result",
    "fetch": "content",
    "forget": "forgotten",
    "noop": "done",
    "bye": "bye",
}
"""The type of the answer to each request."""


@dataclass(frozen=True)
class Environment:
    """What is known of ``JobResult.environment`` (`device_worker.environment`); there is more."""

    machine: Optional[str] = None
    kernel: Optional[str] = None
    os: Optional[str] = None
    libc: Optional[str] = None
    python: Optional[str] = None
    python_bits: Optional[int] = None
    numpy: Optional[str] = None
    hardware: Optional[str] = None
    fingerprint: Optional[str] = None
    soc: Optional[str] = None
    isa_flags: Optional[List[str]] = None
    cores: Optional[List[Dict[str, str]]] = None
    governors: Optional[List[str]] = None
    runtimes: Optional[Dict[str, Dict[str, Any]]] = None
    runtime: Optional[Dict[str, Any]] = None
    delegate: Optional[Dict[str, Any]] = None
    board: Optional[Dict[str, Any]] = None
    threads: Optional[int] = None


def check_environment(data: Any) -> None:
    """Raises WireError unless every field of `Environment` that ``data`` has is of its type."""
    known = {f.name for f in fields(Environment)}
    found = coerce(Dict[str, Any], data, "environment")
    load(Environment, {name: value for name, value in found.items() if name in known})


def message(line: bytes) -> Dict[str, Any]:
    """A message of the worker's: of a known type, each of its fields as MESSAGES has it.

    Raises WireError.
    """
    data = decode(line)
    kind = data.get("type")
    known = MESSAGES.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise WireError(f"unknown type {str(kind)[:40]!r}")
    unknown = sorted(set(data) - set(known) - {"type", "id"})
    if unknown:
        raise WireError(f"{kind}: unknown field {unknown[0][:40]!r}")
    found = {name: coerce(hint, data.get(name), f"{kind}.{name}") for name, hint in known.items()}
    ident = coerce(Optional[int], data.get("id"), f"{kind}.id")
    if kind == "facts":
        check_environment(found["environment"])
    return {"type": kind, "id": ident, **found}
