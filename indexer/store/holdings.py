"""What a collection already holds of what a source brings: who has its ids, and vectors of equal content.

What this module does not know: corpora, models, what is done about it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import func, select

from indexer.store.catalog import Space, batches
from indexer.store.database import Database, storable
from indexer.store.read_only import undisturbed
from indexer.store.schema import DocumentRow, SegmentRow, VectorRow, living
from indexer.store.segments import SegmentFile
from indexer.types import Modality


class Holder(NamedTuple):
    """The living document that has an id.

    Attributes:
        source: The corpus that it came from; None for what `Collection.add` put there.
        stamp: The corpus's; None where it is to be read again.
        uri: Where it is.
        content: What its vector was made of, as `content_of` tells it.
    """

    source: str | None
    stamp: str | None
    uri: str | None
    content: str | None


class Place(NamedTuple):
    """Where a vector lies."""

    segment: SegmentFile
    row: int


def content_of(modality: Modality, text: str | None, image_sha256: str | None) -> str | None:
    """What a vector is made of: equal for documents that one model gives one vector. None where it is not known."""
    told = None if text is None else hashlib.sha256(text.encode()).hexdigest()
    match modality:
        case Modality.IMAGE:
            return image_sha256
        case Modality.TEXT:
            return told
        case Modality.FUSED:
            return f"{image_sha256}+{told}" if image_sha256 and told else None


@undisturbed
def holders(database: Database, ids: Sequence[str]) -> dict[str, Holder]:
    """Who has these ids now; free ones are left out."""
    found: dict[str, Holder] = {}
    query = select(DocumentRow.id, DocumentRow.source, DocumentRow.stamp, DocumentRow.uri, DocumentRow.content)
    with database.read() as connection:
        for some in batches([each for each in ids if storable(each)]):
            rows = connection.execute(query.where(DocumentRow.id.in_(some), living(connection.dialect.name)))
            found.update((row[0], Holder._make(row[1:])) for row in rows)
    return found


@undisturbed
def places(database: Database, space: Space, contents: Sequence[str]) -> dict[str, Place]:
    """A vector of a living document for each of these contents that there is one of."""
    found: dict[str, Place] = {}
    with database.read() as connection:
        for some in batches(contents):
            newest = (
                select(func.max(DocumentRow.key))
                .where(DocumentRow.content.in_(some), living(connection.dialect.name))
                .group_by(DocumentRow.content)
            )
            keys = list(connection.execute(newest).scalars())
            columns = (SegmentRow.file, SegmentRow.sha256, SegmentRow.size, SegmentRow.rows)
            rows = connection.execute(
                select(DocumentRow.content, VectorRow.row, *columns)
                .join(VectorRow, VectorRow.document == DocumentRow.key)
                .join(SegmentRow, SegmentRow.id == VectorRow.segment)
                .where(DocumentRow.key.in_(keys), VectorRow.space == space.id)
            )
            found.update((str(row[0]), Place(SegmentFile(*row[2:]), row[1])) for row in rows)
    return found


@undisturbed
def has_source(database: Database, source: str) -> bool:
    """Whether any living document came from a source."""
    query = select(DocumentRow.key).where(DocumentRow.source == source, DocumentRow.died.is_(None)).limit(1)
    with database.read() as connection:
        return connection.execute(query).first() is not None
