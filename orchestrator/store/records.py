"""What goes into the store and what comes out of it: plain values, standard library only.

Times are Unix seconds (UTC) of the coordinator that wrote them; they order and inform, and decide
nothing (leases expire by counters, see docs/decisions/0003-leases.md).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from device_worker import fence
from orchestrator.errors import DamageError
from orchestrator.queue.states import AttemptState, CellState, RunState

Json = dict[str, Any]


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces. Raises ValueError or TypeError for NaN and non-JSON."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_of(data: Any) -> str:
    """sha256 hex of the canonical JSON of ``data``."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()


def content_id(outputs: Sequence[str]) -> str:
    """What "the same answer" means: equal where every output's bytes, dtype and shape are equal.

    ``outputs``: sha256 of each output's .npy, in tensor order.
    """
    return hashlib.sha256("\n".join(outputs).encode()).hexdigest()


def content_of(artefacts: Mapping[str, Blob]) -> str | None:
    """The content ID of an attempt's files by role; None where it has no output."""
    count = sum(role.startswith("output-") for role in artefacts)
    outputs = [artefacts.get(f"output-{i}") for i in range(count)]
    hashes = [blob.sha256 for blob in outputs if blob is not None]
    return content_id(hashes) if count and len(hashes) == count else None


@dataclass(frozen=True)
class Blob:
    """A file in the artefact store: sha256 hex and size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Owner:
    """A coordinator process.

    ``boot_id`` also names the PID namespace; ``pid_start`` is in clock ticks since boot. Unknown is
    "" and 0, and such an owner is never judged dead by its PID.
    """

    coordinator: str
    host: str
    boot_id: str
    pid: int
    pid_start: int


@dataclass(frozen=True)
class Lease:
    """The right to one device while ``token`` is its newest. ``shown``: to it, besides."""

    device: str
    token: int
    owner: Owner
    shown: fence.Claim = field(default=fence.NO_STORE, compare=False)


@dataclass(frozen=True)
class LeaseInfo:
    """A held lease as an observer sees it."""

    device: str
    token: int
    counter: int
    owner: Owner
    granted: float


@dataclass(frozen=True)
class CellSpec:
    """One planned cell. ``candidates``: units that may serve ``slot``, alike in all its cells.

    ``env_key`` names the runtime environment on the device, ``position`` is plan order.
    """

    id: str
    slot: str
    candidates: Sequence[str]
    model: str
    file: str
    inputs: str
    condition: str
    runtime: str
    env_key: str
    position: int


@dataclass(frozen=True)
class AttemptRecord:
    """How an attempt ended. ``artefacts``: role -> file already put into the artefact store.

    ``codes_valid``/``timing_valid`` are None unless ``state`` is ok. ``started``/``ended`` are
    None when the device was never reached.
    """

    state: AttemptState
    error_id: str | None = None
    error: str | None = None
    retryable: bool = False
    codes_valid: bool | None = None
    timing_valid: bool | None = None
    started: float | None = None
    ended: float | None = None
    hub: str | None = None
    environment: Json | None = None
    result: Json | None = None
    artefacts: Mapping[str, Blob] = field(default_factory=dict)

    def columns(self) -> Json:
        """As the store keeps it, with the files by role: equal for an attempt delivered twice.

        ``environment`` is the sha256 of what was said. ValueError or TypeError for NaN in metadata
        and what is not JSON.
        """
        for name in ("started", "ended"):
            if not math.isfinite(vars(self)[name] or 0.0):
                raise ValueError(f"{name} is {vars(self)[name]}")
        return {
            **vars(self),
            **{name: _text(vars(self)[name]) for name in ("error_id", "error", "hub")},
            "environment": None if self.environment is None else sha256_of(self.environment),
            "result": None if self.result is None else json.loads(canonical(self.result)),
            "content": content_of(self.artefacts),
        }


def _text(value: str | None) -> str | None:
    """Device output as storable text: PostgreSQL has no NUL, SQLite no lone surrogates."""
    if value is None:
        return None
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Finish:
    """``already``: this very record had been written before. ``cell``: its state now."""

    already: bool
    cell: CellState


@dataclass(frozen=True)
class RunInfo:
    """``cells`` counts every CellState, ``outcomes`` the outcomes of cells that are done.

    ``damage``: its record is not what was written.
    """

    id: str
    name: str
    state: RunState
    retry_infra: int
    created: float
    cells: Mapping[CellState, int]
    outcomes: Mapping[AttemptState, int]
    damage: DamageError | None = None


@dataclass(frozen=True)
class CellInfo:
    """``unit``: the unit bound to the slot. ``attempt``: the one whose outcome counts.

    ``damage``: its record is not what was written; it then counts as ended in an infra_error.
    """

    run: str
    id: str
    position: int
    slot: str
    unit: str | None
    model: str
    file: str
    inputs: str
    condition: str
    runtime: str
    env_key: str
    state: CellState
    outcome: AttemptState | None
    attempt: str | None
    failures: int
    damage: DamageError | None = None


@dataclass(frozen=True)
class Claim:
    """A cell taken for one attempt. ``number`` counts the cell's attempts from 1."""

    attempt: str
    number: int
    device: str
    token: int
    cell: CellInfo


@dataclass(frozen=True)
class AttemptInfo:
    """``device`` is None (and ``token`` 0) for a cell given up before any unit took it.

    ``offline``: the nonce of the archive in which the cell left; ``token`` is 0 then too.
    ``content``: content_of its files. ``damage``: its record is not what was written; nothing it
    says is then believed, and it counts as an infra_error.
    """

    id: str
    run: str
    cell: str
    number: int
    device: str | None
    token: int
    state: AttemptState
    error_id: str | None
    error: str | None
    retryable: bool
    codes_valid: bool | None
    timing_valid: bool | None
    claimed: float
    started: float | None
    ended: float | None
    hub: str | None
    environment: str | None
    result: Json | None
    offline: str | None
    artefacts: Mapping[str, Blob]
    content: str | None = None
    digest: str | None = None
    damage: DamageError | None = None

    @property
    def witnessed(self) -> bool:
        """Whether its record is known to be what was written."""
        return self.digest is not None


@dataclass(frozen=True)
class PackInfo:
    """An archive of cells. ``out``: attempt -> cell of those that have not come back."""

    nonce: str
    run: str
    device: str
    created: float
    manifest: Json
    out: Mapping[str, str]


@dataclass(frozen=True)
class DeviceInfo:
    """``damage``: its record is not what was written."""

    name: str
    device_class: str
    emulated: bool
    identity: Json
    first_seen: float
    last_seen: float
    damage: DamageError | None = None


@dataclass(frozen=True)
class FingerprintInfo:
    """``configuration``: runtime and kernel set; ``environment``: sha256 of what it was taken in.

    ``document``: see orchestrator/fingerprint/identify.py.
    """

    device: str
    configuration: str
    version: str | None
    environment: str
    sha256: str
    document: Json
    created: float


@dataclass(frozen=True)
class BaselineKey:
    """What an FP32 baseline depends on. ``inputs``: sha256 of each input file, in tensor order.

    ``environment``: sha256 from ``Store.environment``; FP32 differs by CPU and runtime too.
    """

    model_sha256: str
    inputs: Sequence[str]
    environment: str

    def digest(self) -> str:
        return sha256_of({**vars(self), "inputs": list(self.inputs)})


class Reading(NamedTuple):
    """One telemetry value: seconds since the job began; None where the sensor was unreadable."""

    t_s: float
    sensor: str
    value: float | None
