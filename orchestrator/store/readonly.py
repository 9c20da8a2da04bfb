"""Read-only access without SQLAlchemy, for commands that must answer at once (``assay status``)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.store.db_errors import corrupt, database_fault, missing
from orchestrator.store.reader import Reader, Row
from orchestrator.store.schema import check
from orchestrator.store.sqlite import DATABASE, open_sqlite


@contextmanager
def glance(root: Path, *, busy_timeout: float = 2.0) -> Iterator[Reader]:
    """A Reader of the store in folder ``root`` that sees one state of it throughout.

    Raises InputError E-STORE-MISSING, InfraError E-STORE-OLD, E-STORE-NEW, E-STORE-*.
    """
    path = root / DATABASE
    if not path.is_file():
        raise missing(path)
    connection: sqlite3.Connection | None = None
    try:
        connection = open_sqlite(path, readonly=True, busy_timeout=busy_timeout)
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        check(_revision(connection, path), path)
        yield Reader(lambda sql, values: _query(connection, sql, values))
    except sqlite3.Error as error:
        raise database_fault(error, path) from error
    except UnicodeDecodeError as error:  # what a damaged schema makes of SQLite's own messages
        raise corrupt(error, path) from error
    finally:
        if connection is not None:
            connection.close()


def _query(connection: sqlite3.Connection, sql: str, values: Mapping[str, Any]) -> list[Row]:
    return [dict(row) for row in connection.execute(sql, values)]


def _revision(connection: sqlite3.Connection, path: Path) -> str:
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
            raise missing(path) from error
        raise
    if row is None:
        raise missing(path)
    return str(row[0])
