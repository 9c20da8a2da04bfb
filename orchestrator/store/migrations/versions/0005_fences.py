"""One counter of tokens for all devices, and the incarnation that devices remember with it."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ABOVE = 1_000_000_000
"""Tokens go on above what was counted for each name, and above what any device remembers of it."""


def upgrade() -> None:
    fence = op.create_table(
        "fence",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("incarnation", sa.String(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("adopted", sa.BigInteger(), nullable=False),
        sa.Column("heard", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    forebear = op.create_table(
        "forebear",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("incarnation", sa.String(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("incarnation"),
    )
    connection = op.get_bind()
    last = connection.execute(sa.text("SELECT max(token) FROM lease")).scalar()
    first = {"id": 1, "incarnation": secrets.token_hex(8), "generation": 1, "place": ""}
    token = 0 if last is None else ABOVE + last
    connection.execute(fence.insert().values(**first, token=token, adopted=0, heard=0))
    if last is not None:
        # What devices remember without an incarnation: any token of it was ours.
        connection.execute(forebear.insert().values(incarnation="", token=last))
