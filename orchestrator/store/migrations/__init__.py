"""Alembic environment of the store; run by store/migrate.py."""
