"""Who the collection is: a random id, by which a folder that took its place is told from it."""

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
