"""The tables (SQLModel). Only types that SQLite and PostgreSQL share; migrations build them.

``digest`` is what store/digests.py makes of the row's other columns.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, UniqueConstraint
from sqlalchemy import ForeignKeyConstraint as Foreign
from sqlmodel import Field, SQLModel


class Device(SQLModel, table=True):
    name: str = Field(primary_key=True)
    device_class: str
    emulated: bool
    identity: dict[str, Any] = Field(sa_type=JSON)
    first_seen: float
    last_seen: float
    digest: str | None = None


class Lease(SQLModel, table=True):
    """One row per name for ever: ``token`` never falls. Free when ``coordinator`` is NULL."""

    device: str = Field(primary_key=True, foreign_key="device.name")
    token: int
    counter: int
    coordinator: str | None = None
    host: str = ""
    boot_id: str = ""
    pid: int = 0
    pid_start: int = Field(default=0, sa_type=BigInteger)
    granted: float


class Fence(SQLModel, table=True):
    """One row: the store's incarnation, and the ``token`` it granted last (store/fences.py).

    ``place``: where it drove from last, "" before it ever did. ``adopted``: the generation in which
    somebody last decided that this copy goes on; ``heard``: the highest of another copy.
    """

    id: int | None = Field(default=None, primary_key=True)
    incarnation: str
    generation: int = Field(sa_type=BigInteger)
    token: int = Field(sa_type=BigInteger)
    place: str
    adopted: int = Field(sa_type=BigInteger)
    heard: int = Field(sa_type=BigInteger)


class Forebear(SQLModel, table=True):
    """An incarnation that the store goes on from, and the last token under it that was its own."""

    number: int | None = Field(default=None, primary_key=True)
    incarnation: str = Field(unique=True)
    token: int = Field(sa_type=BigInteger)


class Run(SQLModel, table=True):
    id: str = Field(primary_key=True)
    name: str
    state: str
    retry_infra: int
    created: float = Field(index=True)
    frozen: dict[str, Any] = Field(sa_type=JSON)
    digest: str | None = None


class Slot(SQLModel, table=True):
    """``unit`` is NULL until a unit claims the slot's first cell."""

    __table_args__ = (UniqueConstraint("run", "unit"),)

    run: str = Field(primary_key=True, foreign_key="run.id")
    name: str = Field(primary_key=True)
    position: int
    candidates: list[str] = Field(sa_type=JSON)
    unit: str | None = Field(default=None, foreign_key="device.name")


class Cell(SQLModel, table=True):
    """``attempt`` is the one attempt that counts, set when ``state`` becomes done."""

    __table_args__ = (
        Foreign(["run", "slot"], ["slot.run", "slot.name"]),
        Index("ix_cell_pending", "run", "slot", "state", "failures", "position"),
    )

    run: str = Field(primary_key=True, foreign_key="run.id")
    id: str = Field(primary_key=True)
    position: int
    slot: str
    model: str
    file: str
    inputs: str
    condition: str
    runtime: str
    env_key: str
    state: str
    outcome: str | None = None
    attempt: str | None = None
    failures: int = 0
    digest: str | None = None


class Attempt(SQLModel, table=True):
    """Written once when it starts and once when it ends; after that never again.

    ``content``: records.content_of its outputs. ``digest``: store/digests.py; NULL while it runs.
    ``offline``: the nonce of the archive it left in; such an attempt runs under no lease (token 0).
    """

    __table_args__ = (
        Foreign(["run", "cell"], ["cell.run", "cell.id"]),
        UniqueConstraint("run", "cell", "number"),
        Index("ix_attempt_lease", "device", "token", "state"),
    )

    id: str = Field(primary_key=True)
    run: str
    cell: str
    number: int
    device: str | None = Field(default=None, foreign_key="device.name")
    token: int
    state: str
    claimed: float
    started: float | None = None
    ended: float | None = None
    hub: str | None = None
    error_id: str | None = None
    error: str | None = None
    retryable: bool = False
    codes_valid: bool | None = None
    timing_valid: bool | None = None
    environment: str | None = Field(default=None, foreign_key="environment.sha256")
    # Without none_as_null a missing result would be the JSON value null and not NULL.
    result: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    digest: str | None = None
    offline: str | None = Field(default=None, foreign_key="pack.nonce", index=True)
    content: str | None = None


class Pack(SQLModel, table=True):
    """Cells of a run that left as an archive: out as long as an attempt with its nonce runs."""

    nonce: str = Field(primary_key=True)
    run: str = Field(foreign_key="run.id")
    device: str = Field(foreign_key="device.name")
    created: float
    manifest: dict[str, Any] = Field(sa_type=JSON)
    digest: str | None = None


class Environment(SQLModel, table=True):
    sha256: str = Field(primary_key=True)
    data: dict[str, Any] = Field(sa_type=JSON)


class Artefact(SQLModel, table=True):
    sha256: str = Field(primary_key=True)
    size: int = Field(sa_type=BigInteger)


class AttemptArtefact(SQLModel, table=True):
    """``packed``: the Parquet artefact that now holds the file's content (store/compact.py)."""

    __tablename__ = "attempt_artefact"

    attempt: str = Field(primary_key=True, foreign_key="attempt.id")
    role: str = Field(primary_key=True)
    sha256: str = Field(foreign_key="artefact.sha256", index=True)
    packed: str | None = Field(default=None, foreign_key="artefact.sha256")


class Verdict(SQLModel, table=True):
    """Every evaluation is kept; the newest one of a run is its verdict."""

    id: int | None = Field(default=None, primary_key=True)
    run: str = Field(foreign_key="run.id", index=True)
    created: float
    document: dict[str, Any] = Field(sa_type=JSON)
    digest: str | None = None


class Baseline(SQLModel, table=True):
    key: str = Field(primary_key=True)
    model_sha256: str
    inputs: list[str] = Field(sa_type=JSON)
    environment: str = Field(foreign_key="environment.sha256")
    created: float
    data: dict[str, Any] = Field(sa_type=JSON)
    digest: str | None = None


class Fingerprint(SQLModel, table=True):
    """What the arithmetic of a runtime on a device was found to be; all are kept.

    ``configuration``: runtime and kernel set, as in "litert/reference". ``sha256``: of the answers,
    equal where the arithmetic is.
    """

    __table_args__ = (Index("ix_fingerprint_newest", "device", "configuration", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    device: str = Field(foreign_key="device.name")
    configuration: str
    version: str | None = None
    environment: str = Field(foreign_key="environment.sha256")
    sha256: str = Field(index=True)
    document: dict[str, Any] = Field(sa_type=JSON)
    created: float
    digest: str | None = None
