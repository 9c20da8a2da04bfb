"""The two documents of offline work: the manifest that leaves and the result that comes back.

Both are JSON in files of their own, each a dataclass read with ``wire.load``, so that unknown,
missing and ill-typed fields are refused. Standard library only: both sides import this module.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from device_worker.wire import Blob, Job, JobResult, Source

PACK = "assay.pack/1"
RESULT = "assay.offline-result/1"

MANIFEST_FILE = "manifest.json"
RESULT_FILE = "result.json"
START, WORKER, BUNDLES, PYTHONS = "start.py", "worker.pyz", "bundles", "python"

DOCUMENT_LIMIT = 64 << 20
"""Bytes of either document."""

OUTCOMES = ("ok", "model_error", "infra_error", "timeout", "not_available")


@dataclass(frozen=True)
class Gate:
    """When a job may start: degrees Celsius, percent, and seconds to wait for it at most."""

    max_start_c: Optional[float] = None
    min_battery: Optional[float] = None
    settle_s: float = 0.0


@dataclass(frozen=True)
class PackedJob:
    """One cell of an offline run.

    ``python``: the interpreter on the device; ``bundle``: sha256 of the hermetic one that is used
    instead. ``own_python``: it belongs to this runtime alone, so that where it does not exist the
    runtime is not installed. ``timeout_s``: from its start to its result.
    """

    cell: str
    job: Job
    python: str
    own_python: bool
    timeout_s: float
    env: Dict[str, str] = field(default_factory=dict)
    gate: Gate = field(default_factory=Gate)
    bundle: Optional[str] = None


@dataclass(frozen=True)
class Manifest:
    """``nonce``: 32 hex digits, this archive's alone. ``bundles``: sha256 -> size in bytes.

    ``facts``: where the device is asked for the facts by which the inventory knows the unit.
    """

    schema: str
    nonce: str
    farm: str
    run: str
    device: str
    device_class: str
    worker: Blob
    bundles: Dict[str, int]
    jobs: List[PackedJob]
    facts: List[Source] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """How one job ended. ``code``, ``what``, ``mend``: the error unless ``outcome`` is ok.

    ``start``: the sensors when it was let start. ``files``: role -> file of the archive, roles as
    in ``JobResult.files`` and ``output-<i>``. ``bundle``: sha256 of the hermetic
    Python that ran it, None for another one. Times by the device's clock.
    """

    attempt: str
    outcome: str
    started_unix: float
    ended_unix: float
    code: Optional[str] = None
    what: str = ""
    mend: str = ""
    start: Dict[str, Optional[float]] = field(default_factory=dict)
    result: Optional[JobResult] = None
    files: Dict[str, Blob] = field(default_factory=dict)
    bundle: Optional[str] = None


@dataclass(frozen=True)
class Result:
    """The answers of an offline run.

    ``facts``: what the manifest's sources told, by name. ``seal``: see the function; it binds the
    answers to the manifest and its nonce.
    """

    schema: str
    nonce: str
    manifest_sha256: str
    worker_sha256: str
    started_unix: float
    ended_unix: float
    environment: Dict[str, Any]
    answers: List[Answer]
    seal: str
    facts: Dict[str, Any] = field(default_factory=dict)


def canonical(data: Any) -> bytes:
    """JSON with sorted keys and no spaces. Raises ValueError for NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256_of(data: Any) -> str:
    """sha256 hex of the canonical JSON of ``data``."""
    return hashlib.sha256(canonical(data)).hexdigest()


def seal(manifest_sha256: str, result: Dict[str, Any]) -> str:
    """sha256 hex over the manifest's hash and the result's JSON data without its own ``seal``.

    Shows accident and casual tampering; who wants to lie can compute it as well.
    """
    rest = {key: value for key, value in result.items() if key != "seal"}
    return sha256_of({"manifest": manifest_sha256, "result": rest})


def result_name(nonce: str) -> str:
    return "assay-result-%s.tar.gz" % nonce[:8]
