"""Look up what a collection already holds: documents with a source's ids, and vectors of equal content.

What this module does not know: corpora, models, what the answers are used for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select

from indexer.metadata.catalog import Space, batches
from indexer.metadata.connections import undisturbed
from indexer.metadata.database import Database, storable
from indexer.metadata.schema import DocumentRow, JobRow, SegmentRow, VectorRow, living
from indexer.types import Modality
from indexer.vectors.segments import SegmentFile

_NEWEST = "SELECT max(key) FROM documents WHERE content IN ({}) AND died IS NULL GROUP BY content"
"""For SQLite's driver; the braces hold one `?` per content."""


class Holder(NamedTuple):
    """The living document with an id.

    Attributes:
        source: The corpus that it came from; None if `Collection.add` stored it.
        stamp: The corpus's stamp; None if it must be read again.
        uri: Its location.
        content: The content key of its vector; see `content_of`.
    """

    source: str | None
    stamp: str | None
    uri: str | None
    content: str | None


class Place(NamedTuple):
    """The location of a stored vector."""

    segment: SegmentFile
    row: int


def content_of(modality: Modality, text: str | None, image_sha256: str | None) -> str | None:
    """The content key of a vector: equal for documents that a model gives the same vector. None if it is not known."""
    digest = None if text is None else hashlib.sha256(text.encode()).hexdigest()
    match modality:
        case Modality.IMAGE:
            return image_sha256
        case Modality.TEXT:
            return digest
        case Modality.FUSED:
            return f"{image_sha256}+{digest}" if image_sha256 and digest else None


@undisturbed
def holders(database: Database, ids: Sequence[str]) -> dict[str, Holder]:
    """The living documents with these ids; free ids are left out."""
    found: dict[str, Holder] = {}
    query = select(DocumentRow.id, DocumentRow.source, DocumentRow.stamp, DocumentRow.uri, DocumentRow.content)
    with database.read() as connection:
        for some in batches([each for each in ids if storable(each)]):
            rows = connection.execute(query.where(DocumentRow.id.in_(some), living(connection.dialect.name)))
            found.update((row[0], Holder._make(row[1:])) for row in rows)
    return found


@undisturbed
def job_sources(database: Database) -> list[str]:
    """All sources that were ever indexed, newest first."""
    query = (
        select(JobRow.source).where(JobRow.space.is_(None)).group_by(JobRow.source).order_by(func.max(JobRow.id).desc())
    )
    with database.read() as connection:
        return [str(row[0]) for row in connection.execute(query)]


@undisturbed
def places(database: Database, space: Space, contents: Sequence[str]) -> dict[str, Place]:
    """A vector of a living document for each of these contents, if there is one."""
    keys = [key for some in batches(contents) for key in _newest_with(database, some)]
    if not keys:
        return {}
    found: dict[str, Place] = {}
    columns = (SegmentRow.file, SegmentRow.sha256, SegmentRow.size, SegmentRow.rows)
    query = (
        select(DocumentRow.content, VectorRow.row, *columns)
        .join(VectorRow, VectorRow.document == DocumentRow.key)
        .join(SegmentRow, SegmentRow.id == VectorRow.segment)
        .where(VectorRow.space == space.id, VectorRow.modality.is_(None))  # otherwise it was made of other parts
    )
    with database.read() as connection:
        for some in batches(keys):
            rows = connection.execute(query.where(DocumentRow.key.in_(some)))
            found.update((str(row[0]), Place(SegmentFile(*row[2:]), row[1])) for row in rows)
    return found


def _newest_with(database: Database, contents: Sequence[str]) -> list[int]:
    """The newest living document of each content, if there is one."""
    # Asked for every few documents of a job, and rarely found.
    rows = database.read_directly(_NEWEST.format(",".join("?" * len(contents))), contents)
    if rows is not None:
        return [row[0] for row in rows]
    query = (
        select(func.max(DocumentRow.key))
        .where(DocumentRow.content.in_(contents), DocumentRow.died.is_(None))
        .group_by(DocumentRow.content)
    )
    with database.read() as connection:
        return list(connection.execute(query).scalars())


def contents(database: Database) -> npt.NDArray[np.int64]:
    """Python's `hash` of the contents of all living documents: (n,) int64, ascending."""
    with database.read() as connection:
        # So that only the index is read, not the rows.
        query = select(DocumentRow.content).where(DocumentRow.content > "", living(connection.dialect.name))
        rows = connection.execution_options(yield_per=10_000).execute(query)
        hashes = np.fromiter((hash(row[0]) for row in rows), np.int64)
    hashes.sort()
    return hashes


@undisturbed
def has_source(database: Database, source: str) -> bool:
    """Whether any living document came from a source."""
    query = select(DocumentRow.key).where(DocumentRow.source == source, DocumentRow.died.is_(None)).limit(1)
    with database.read() as connection:
        return connection.execute(query).first() is not None
