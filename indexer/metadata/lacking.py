"""The documents that have no vector in a space.

What this module does not know: why they have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, select

from indexer.metadata.catalog import batches
from indexer.metadata.connections import undisturbed
from indexer.metadata.database import Database
from indexer.metadata.schema import DocumentRow, VectorRow
from indexer.stored_document import several_images
from indexer.types import Modality


class Lacking(NamedTuple):
    """The parts of a living document that a model may read.

    Attributes:
        key: Its row's key.
        id: Its id.
        uri: Where it came from.
        text: Its text.
        images: (URI, sha256) of each image, in order.
        modality: The modality of its vectors in other spaces.
    """

    key: int
    id: str
    uri: str | None
    text: str | None
    images: list[tuple[str, str | None]]
    modality: Modality


@undisturbed
def lacking(database: Database, space: int, after: int, limit: int) -> list[Lacking]:
    """The living documents without a vector in a space whose key is above `after`, in order of their keys."""
    columns = (
        DocumentRow.key, DocumentRow.id, DocumentRow.uri, DocumentRow.text, DocumentRow.image,
        DocumentRow.image_sha256, DocumentRow.images, DocumentRow.modality,
    )  # fmt: skip
    query = select(*columns).where(DocumentRow.key > after, *_is_lacking(space)).order_by(DocumentRow.key).limit(limit)
    with database.read() as connection:
        rows = connection.execute(query).all()
    found = []
    for row in rows:
        several = several_images(row.images, database.shown)
        images: list[tuple[str, str | None]] = [] if row.image is None else [(row.image, row.image_sha256)]
        if several is not None:
            images = [(uri, digest) for uri, digest in several]
        found.append(Lacking(row.key, row.id, row.uri, row.text, images, Modality(row.modality)))
    return found


@undisturbed
def still_lacking(database: Database, space: int, keys: Sequence[int]) -> set[int]:
    """The given documents that live and have no vector in a space."""
    found: set[int] = set()
    with database.read() as connection:
        for some in batches(keys):
            query = select(DocumentRow.key).where(DocumentRow.key.in_(some), *_is_lacking(space))
            found.update(connection.execute(query).scalars())
    return found


def _is_lacking(space: int) -> tuple[ColumnElement[bool], ...]:
    has = select(VectorRow.id).where(VectorRow.document == DocumentRow.key, VectorRow.space == space).exists()
    return DocumentRow.died.is_(None), ~has
