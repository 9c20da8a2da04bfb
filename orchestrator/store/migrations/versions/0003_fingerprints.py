"""What the arithmetic of a runtime on a device was found to be: `assay fingerprint`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "fingerprint",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("configuration", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=True),
        sa.Column("environment", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device"],
            ["device.name"],
        ),
        sa.ForeignKeyConstraint(
            ["environment"],
            ["environment.sha256"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_fingerprint_newest", "fingerprint", ["device", "configuration", "id"], unique=False
    )
    op.create_index(op.f("ix_fingerprint_sha256"), "fingerprint", ["sha256"], unique=False)
