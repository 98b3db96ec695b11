"""An index of image digests, by which a query leaves out copies of its own reference image."""

from __future__ import annotations

from alembic import op

revision = "m004"
down_revision = "m003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_documents_image_sha256", "documents", ["image_sha256"])
