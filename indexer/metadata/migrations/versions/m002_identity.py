"""The collection's identity: a random id that distinguishes it from a folder put in its place."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "m002"
down_revision = "m001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "identity",
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_identity"),
    )
    op.bulk_insert(table, [{"number": 1, "id": uuid.uuid4().hex}])
