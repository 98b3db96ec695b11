"""The first schema: documents, vectors, segments, spaces, means, generations, jobs, shards, rejects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "m001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out and not taken from schema.py: a migration describes the past, which schema.py moves on from.
KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
JSON = sa.JSON().with_variant(JSONB, "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("key", KEY, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("uri", sa.Text),
        sa.Column("image", sa.Text),
        sa.Column("image_sha256", sa.Text),
        sa.Column("modality", sa.Text, nullable=False),
        sa.Column("fields", JSON, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("stamp", sa.Text),
        sa.Column("born", sa.Integer, nullable=False),
        sa.Column("died", sa.Integer),
        sa.PrimaryKeyConstraint("key", name="pk_documents"),
        # Keys of dropped rows must not come back: AUTOINCREMENT, which SQLite leaves out by default.
        sqlite_autoincrement=True,
    )
    living = sa.text("died IS NULL")
    op.create_index(
        "uq_documents_living_id",
        "documents",
        ["id"],
        unique=True,
        sqlite_where=living,
        postgresql_where=living,
    )
    op.create_index("ix_documents_source", "documents", ["source"])
    op.create_index("ix_documents_died", "documents", ["died"])
    op.create_table(
        "spaces",
        sa.Column("id", KEY, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("dim", sa.Integer, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.Column("parts", sa.Text, nullable=False),
        sa.Column("fingerprint", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_spaces"),
        sa.UniqueConstraint("digest", name="uq_spaces_digest"),
    )
    op.create_table(
        "means",
        sa.Column("space", KEY, sa.ForeignKey("spaces.id", name="fk_means_space"), nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("modality", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("total", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("space", "role", "modality", "generation", name="pk_means"),
    )
    op.create_table(
        "segments",
        sa.Column("id", KEY, nullable=False),
        sa.Column("space", KEY, sa.ForeignKey("spaces.id", name="fk_segments_space"), nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("born", sa.Integer, nullable=False),
        sa.Column("died", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_segments"),
        sa.UniqueConstraint("file", name="uq_segments_file"),
    )
    op.create_table(
        "vectors",
        sa.Column("id", KEY, nullable=False, autoincrement=False),
        sa.Column("document", KEY, sa.ForeignKey("documents.key", name="fk_vectors_document"), nullable=False),
        sa.Column("space", KEY, sa.ForeignKey("spaces.id", name="fk_vectors_space"), nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("segment", KEY, sa.ForeignKey("segments.id", name="fk_vectors_segment"), nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_vectors"),
    )
    op.create_index("ix_vectors_document", "vectors", ["document"])
    op.create_index("ix_vectors_segment", "vectors", ["segment"])
    op.create_table(
        "generations",
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("created", MOMENT, nullable=False),
        sa.Column("documents", sa.BigInteger, nullable=False),
        sa.Column("next_vector", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_generations"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", KEY, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("options", JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("started", MOMENT, nullable=False),
        sa.Column("finished", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_table(
        "job_shards",
        sa.Column("job", KEY, sa.ForeignKey("jobs.id", name="fk_job_shards_job"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("added", sa.BigInteger, nullable=False),
        sa.Column("unchanged", sa.BigInteger, nullable=False),
        sa.Column("rejected", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("job", "number", name="pk_job_shards"),
    )
    op.create_table(
        "rejects",
        sa.Column("id", KEY, nullable=False),
        sa.Column("job", KEY, sa.ForeignKey("jobs.id", name="fk_rejects_job"), nullable=False),
        sa.Column("shard", sa.Integer, nullable=False),
        sa.Column("uri", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rejects"),
    )
    op.create_index("ix_rejects_job_shard", "rejects", ["job", "shard"])
