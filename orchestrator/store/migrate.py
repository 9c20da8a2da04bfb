"""Runs the Alembic migrations. Loaded only to create or upgrade a store."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text

from orchestrator.store.engine import Database
from orchestrator.store.schema import HEAD, HISTORY, MIGRATIONS, check, foreign


def current(connection: Connection, database: Database) -> str | None:
    """The revision of the database, None when it is empty. Raises InfraError E-STORE-CORRUPT."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise foreign(database.path)
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def migrate(database: Database, *, create_only: bool = False) -> tuple[str | None, str]:
    """Bring the database to HEAD in one transaction; returns (revision before, revision now).

    ``create_only``: touch nothing but an empty database. Two processes may call this at once.
    Raises InfraError E-STORE-NEW, E-STORE-CORRUPT, E-STORE-*.
    """
    with database.write() as connection:
        before = current(connection, database)
        if before is not None and before not in HISTORY:
            check(before, database.path)
        if before == HEAD or (create_only and before is not None):
            return before, before
        config = Config()
        # A percent sign in the path would start an interpolation of Alembic's ini parser.
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return before, HEAD
