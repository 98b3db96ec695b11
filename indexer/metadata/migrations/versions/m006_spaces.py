"""Several embedding spaces, each with a name; one is the default. Each can be dropped, and filled by a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "m006"
down_revision = "m005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("spaces") as table:
        table.drop_constraint("uq_spaces_digest", type_="unique")  # a dropped space keeps its row until compaction
        table.add_column(sa.Column("name", sa.Text, nullable=False, server_default=""))
        table.add_column(sa.Column("died", sa.Integer))
    op.execute("UPDATE spaces SET name = model")
    op.add_column("identity", sa.Column("space", sa.BigInteger))
    op.add_column("vectors", sa.Column("modality", sa.Text))
    op.add_column("jobs", sa.Column("space", sa.BigInteger))
