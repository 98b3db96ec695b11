"""The SQL tables.

Only `died` is updated in place: a document that is replaced or deleted keeps its row until compaction, so that a reader
pinned to an older generation still sees it. A row lives in generation g if born <= g and (died is null or died > g).

What this module does not know: when rows are written (`publish.py`, `jobs.py`) or read (`catalog.py`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Key = BigInteger().with_variant(Integer, "sqlite")
"""SQLite assigns row numbers only if the type is exactly INTEGER."""
JsonObject = JSON().with_variant(JSONB, "postgresql")
JsonOrNull = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Base(DeclarativeBase):
    """Constraint names are fixed, since SQLite can only alter named constraints."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class IdentityRow(Base):
    """The collection's identity: one row, numbered 1, with a random id that `collection.json` repeats."""

    __tablename__ = "identity"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(Text)
    space: Mapped[int | None] = mapped_column(BigInteger)
    """The default space; NULL for the first space."""


class DocumentRow(Base):
    """One version of a document."""

    __tablename__ = "documents"
    __table_args__ = (
        # One living version of an id. Both databases support the partial index.
        Index(
            "uq_documents_living_id",
            "id",
            unique=True,
            sqlite_where=text("died IS NULL"),
            postgresql_where=text("died IS NULL"),
        ),
        Index(
            "ix_documents_content",
            "content",
            sqlite_where=text("died IS NULL"),
            postgresql_where=text("died IS NULL"),
        ),
        Index("ix_documents_source", "source"),
        Index("ix_documents_image_sha256", "image_sha256"),
        Index("ix_documents_died", "died"),
    )

    key: Mapped[int] = mapped_column(Key, primary_key=True)
    id: Mapped[str] = mapped_column(Text)
    text: Mapped[str | None] = mapped_column(Text)
    uri: Mapped[str | None] = mapped_column(Text)
    image: Mapped[str | None] = mapped_column(Text)
    """`file:///…` for a referenced file, `media:…` for bytes stored in the collection."""
    image_sha256: Mapped[str | None] = mapped_column(Text)
    images: Mapped[list[list[str]] | None] = mapped_column(JsonOrNull)
    """All images of a document with several, in order, each with its `image` and `image_sha256`."""
    content: Mapped[str | None] = mapped_column(Text)
    """The content key of its vectors: equal content has equal vectors and need not be embedded again."""
    modality: Mapped[str] = mapped_column(Text)
    fields: Mapped[dict[str, Any]] = mapped_column(JsonObject)
    source: Mapped[str | None] = mapped_column(Text)
    """The corpus it was indexed from, which pruning compares."""
    stamp: Mapped[str | None] = mapped_column(Text)
    """Changes with the content; a document with an equal stamp need not be embedded again."""
    born: Mapped[int] = mapped_column(Integer)
    died: Mapped[int | None] = mapped_column(Integer)


COSINE = "cosine"
"""The metric of every space: rows have unit length, so the inner product is the cosine."""


class SpaceRow(Base):
    """One embedding space."""

    __tablename__ = "spaces"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(Text, server_default="")
    """Unique among living spaces."""
    digest: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    dim: Mapped[int] = mapped_column(Integer)
    metric: Mapped[str] = mapped_column(Text)
    parts: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[dict[str, Any]] = mapped_column(JsonObject)
    died: Mapped[int | None] = mapped_column(Integer)
    """The generation that dropped it; the next compaction removes its rows."""


class MeanRow(Base):
    """Sum and count of the unit vectors of one role and modality, as of a generation."""

    __tablename__ = "means"

    space: Mapped[int] = mapped_column(ForeignKey("spaces.id"), primary_key=True)
    role: Mapped[str] = mapped_column(Text, primary_key=True)
    modality: Mapped[str] = mapped_column(Text, primary_key=True)
    generation: Mapped[int] = mapped_column(Integer, primary_key=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[bytes] = mapped_column(LargeBinary)
    """float64 little-endian, `dim` of them."""


class SegmentRow(Base):
    """One immutable file of vectors."""

    __tablename__ = "segments"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    space: Mapped[int] = mapped_column(ForeignKey("spaces.id"))
    file: Mapped[str] = mapped_column(Text, unique=True)
    sha256: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    born: Mapped[int] = mapped_column(Integer)
    died: Mapped[int | None] = mapped_column(Integer)


class VectorRow(Base):
    """The location of a document's vector."""

    __tablename__ = "vectors"
    __table_args__ = (Index("ix_vectors_document", "document"), Index("ix_vectors_segment", "segment"))

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=False)
    document: Mapped[int] = mapped_column(ForeignKey("documents.key"))
    space: Mapped[int] = mapped_column(ForeignKey("spaces.id"))
    role: Mapped[str] = mapped_column(Text)
    segment: Mapped[int] = mapped_column(ForeignKey("segments.id"))
    row: Mapped[int] = mapped_column(BigInteger)
    modality: Mapped[str | None] = mapped_column(Text)
    """Its modality; NULL for the document's modality."""


class GenerationRow(Base):
    """One published state. A new reader sees the one with the largest number."""

    __tablename__ = "generations"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    documents: Mapped[int] = mapped_column(BigInteger)
    next_vector: Mapped[int] = mapped_column(BigInteger)
    """The next vector id; ids are never reused, not even after compaction."""
    note: Mapped[str] = mapped_column(Text)


class JobRow(Base):
    """One indexing job: a source with its options. Running it again continues it."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    source: Mapped[str] = mapped_column(Text)
    options: Mapped[dict[str, Any]] = mapped_column(JsonObject)
    state: Mapped[str] = mapped_column(Text)
    started: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    finished: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JsonObject)
    """Counts of the last finished run, other than its rejects, by name."""
    space: Mapped[int | None] = mapped_column(BigInteger)
    """The space that a job fills with stored documents; NULL for other jobs."""


class JobShardRow(Base):
    """One finished shard of a job, inserted by the transaction that publishes its documents."""

    __tablename__ = "job_shards"

    job: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str] = mapped_column(Text)
    """A digest of the ids and stamps of the shard's records: equal digests mean equal content."""
    added: Mapped[int] = mapped_column(BigInteger)
    unchanged: Mapped[int] = mapped_column(BigInteger)
    rejected: Mapped[int] = mapped_column(BigInteger)


class RejectRow(Base):
    """One item that could not be used."""

    __tablename__ = "rejects"
    __table_args__ = (Index("ix_rejects_job_shard", "job", "shard"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    job: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    shard: Mapped[int] = mapped_column(Integer)
    uri: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)


def living(dialect: str) -> ColumnElement[bool]:
    """The condition that a document lives now, which lets statements use the index of living documents.

    SQLite has no statistics here and takes an equality for the most selective condition. Without a hint that this one
    is not, it searches all rows with `died` NULL for a few ids.
    """
    lives = DocumentRow.died.is_(None)
    return func.likely(lives) if dialect == "sqlite" else lives
