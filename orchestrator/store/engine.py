"""Engine and transactions: the one place that begins, commits and maps database errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.pool import QueuePool
from sqlmodel import SQLModel

from orchestrator.errors import InfraError
from orchestrator.store.db_errors import corrupt, database_fault, value_fault
from orchestrator.store.digests import damaged
from orchestrator.store.records import canonical
from orchestrator.store.schema import foreign
from orchestrator.store.sqlite import open_sqlite


class Database:
    """Connections to the database at ``path``; thread-safe."""

    def __init__(self, path: Path, *, readonly: bool, busy_timeout: float) -> None:
        self.path = path
        self.engine = _engine(path, readonly, busy_timeout)
        # Threads queue here in turn; between processes SQLite only polls, with sleeps.
        self._turn = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database. Raises InfraError E-STORE-*."""
        with self._mapped(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its first statement, committed at the end.

        Raises InfraError E-STORE-LOCKED, E-STORE-READONLY, E-DISK-FULL, E-STORE-*.
        """
        with self._turn, self._mapped(), self.engine.connect() as plain:
            connection = plain.execution_options(assay_write=True)
            with connection.begin():
                yield connection

    def revision(self, connection: Connection) -> str | None:
        """The schema's revision, None when the database is empty. InfraError E-STORE-CORRUPT."""
        tables = inspect(connection).get_table_names()
        if "alembic_version" not in tables:
            if tables:
                raise foreign(self.path)
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return None if found is None else str(found)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise database_fault(error.orig or error, self.path) from error
        except UnicodeDecodeError as error:  # what a damaged schema makes of SQLite's own messages
            raise corrupt(error, self.path) from error
        except json.JSONDecodeError as error:
            raise damaged(f"a row of {self.path}", str(error)) from error
        except StatementError as error:
            raise value_fault(error.orig or error, self.path) from error
        except SQLAlchemyError as error:
            raise InfraError("E-STORE-DB", str(error), where=str(self.path)) from error


def insert_missing(connection: Connection, table: type[SQLModel], *rows: dict[str, Any]) -> None:
    """Insert those of ``rows`` whose key is not there already, in one statement.

    Any other broken constraint is raised.
    """
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        into: Any = postgresql.insert(table)
    else:
        into = sqlite.insert(table)
    connection.execute(into.on_conflict_do_nothing(), list(rows))


def _engine(path: Path, readonly: bool, busy_timeout: float) -> Engine:
    engine = create_engine(
        "sqlite://",
        creator=lambda: open_sqlite(path, readonly=readonly, busy_timeout=busy_timeout),
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=-1,
        json_serializer=canonical,
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later could fail half-way with "busy".
        write = connection.get_execution_options().get("assay_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
