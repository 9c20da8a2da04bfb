"""Cells that leave as an archive and come back: `assay pack` and `assay ingest`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "pack",
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device"],
            ["device.name"],
        ),
        sa.ForeignKeyConstraint(
            ["run"],
            ["run.id"],
        ),
        sa.PrimaryKeyConstraint("nonce"),
    )
    # Plain SQL, because Alembic adds a reference to an existing table in a second statement, which
    # SQLite has not.
    op.execute("ALTER TABLE attempt ADD COLUMN offline VARCHAR REFERENCES pack (nonce)")
    op.create_index(op.f("ix_attempt_offline"), "attempt", ["offline"], unique=False)
