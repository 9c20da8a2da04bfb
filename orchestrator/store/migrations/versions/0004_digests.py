"""A digest for every row that counts, and the content ID of every answer.

The digest of an attempt that an older Assay wrote is replaced where that verifies; where it does
not, or there is none, nobody can say whether the row is what was written: it has none from now on.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from orchestrator.store.digests import digest_of
from orchestrator.store.records import Blob, Json, content_of

revision = "0004"
down_revision = "0003"

KEYS = {
    "run": ("id",),
    "cell": ("run", "id"),
    "device": ("name",),
    "pack": ("nonce",),
    "verdict": ("id",),
    "baseline": ("key",),
    "fingerprint": ("id",),
}


def upgrade() -> None:
    op.add_column("attempt", sa.Column("content", sa.String(), nullable=True))
    connection = op.get_bind()
    for table, key in KEYS.items():
        op.add_column(table, sa.Column("digest", sa.String(), nullable=True))
        for row in _rows(connection, f'SELECT * FROM "{table}"'):
            _set(connection, table, key, row, {"digest": _digest(table, row)})
    _attempts(connection)


def _attempts(connection: sa.Connection) -> None:
    files: dict[str, dict[str, Blob]] = {}
    for row in _rows(
        connection,
        "SELECT x.attempt, x.role, x.sha256, f.size FROM attempt_artefact x"
        " JOIN artefact f ON f.sha256 = x.sha256",
    ):
        files.setdefault(row["attempt"], {})[row["role"]] = Blob(row["sha256"], row["size"])
    environments = {
        row["sha256"]: row["data"] for row in _rows(connection, "SELECT * FROM environment")
    }
    for row in _rows(connection, "SELECT * FROM attempt WHERE state <> 'running'"):
        artefacts = files.get(row["id"], {})
        content = content_of(artefacts)
        whole = row["digest"] is not None and row["digest"] == _before(row, artefacts, environments)
        kept = {**row, "content": content, "artefacts": artefacts}
        digest = _digest("attempt", kept) if whole else None
        _set(connection, "attempt", ("id",), row, {"digest": digest, "content": content})


def _before(row: Json, artefacts: dict[str, Blob], environments: dict[str, Any]) -> str | None:
    """The digest as it was until this revision; None where a column cannot be read."""
    names = ("state", "error_id", "error", "started", "ended", "hub")
    flags = ("retryable", "codes_valid", "timing_valid")
    try:
        data = {
            **{name: row[name] for name in names},
            **{name: None if row[name] is None else bool(row[name]) for name in flags},
            "environment": _json(environments[row["environment"]]) if row["environment"] else None,
            "result": _json(row["result"]),
            "artefacts": {role: vars(blob) for role, blob in artefacts.items()},
        }
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, TypeError, KeyError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _digest(table: str, row: Json) -> str | None:
    """None for a row that cannot be read: whoever reads it says why."""
    try:
        return digest_of(table, row)
    except (ValueError, TypeError):
        return None


def _rows(connection: sa.Connection, sql: str) -> list[Json]:
    return [dict(row) for row in connection.execute(sa.text(sql)).mappings()]


def _set(
    connection: sa.Connection, table: str, key: tuple[str, ...], row: Json, values: Json
) -> None:
    where = " AND ".join(f"{name} = :{name}" for name in key)
    what = ", ".join(f"{name} = :new_{name}" for name in values)
    named = {f"new_{name}": value for name, value in values.items()}
    statement = sa.text(f'UPDATE "{table}" SET {what} WHERE {where}')
    connection.execute(statement, {**{name: row[name] for name in key}, **named})
