"""Content keys of documents, so that equal content reuses a vector; and the counts of a job's last run."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "m003"
down_revision = "m002"
branch_labels = None
depends_on = None

_CONTENT = {"image": "image_sha256", "image+text": "image_sha256 || '+' || {text}", "text": "{text}"}
_TEXT = {"sqlite": "sha256_of(text)", "postgresql": "encode(sha256(convert_to(text, 'UTF8')), 'hex')"}


def upgrade() -> None:
    op.add_column("documents", sa.Column("content", sa.Text))
    op.add_column("jobs", sa.Column("outcome", sa.JSON().with_variant(JSONB, "postgresql")))
    connection = op.get_bind()
    dialect = connection.dialect.name
    if dialect == "sqlite":
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.create_function("sha256_of", 1, _sha256)
    for modality, content in _CONTENT.items():
        content_key = content.format(text=_TEXT[dialect])
        op.execute(f"UPDATE documents SET content = {content_key} WHERE died IS NULL AND modality = '{modality}'")  # noqa: S608
    living = sa.text("died IS NULL")
    op.create_index(
        "ix_documents_content", "documents", ["content"], sqlite_where=living, postgresql_where=living
    )  # fmt: skip


def _sha256(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()
