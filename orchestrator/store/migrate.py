"""Runs the Alembic migrations. Loaded only to create or upgrade a store."""

from __future__ import annotations

from alembic import command
from alembic.config import Config

from orchestrator.store.engine import Database
from orchestrator.store.schema import HEAD, HISTORY, MIGRATIONS, check


def migrate(database: Database, *, create_only: bool = False) -> tuple[str | None, str]:
    """Bring the database to HEAD in one transaction; returns (revision before, revision now).

    ``create_only``: touch nothing but an empty database. Two processes may call this at once.
    Raises InfraError E-STORE-NEW, E-STORE-CORRUPT, E-STORE-*.
    """
    with database.write() as connection:
        before = database.revision(connection)
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
