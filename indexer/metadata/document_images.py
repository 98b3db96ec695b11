"""The images of stored documents: a single one in two columns, several in a third one.

What this module does not know: the image files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import select

from indexer.metadata.database import Database
from indexer.metadata.schema import DocumentRow
from indexer.stored_document import several_images

IMAGE_COLUMNS = (DocumentRow.id, DocumentRow.image, DocumentRow.image_sha256, DocumentRow.images)


def every_image(rows: Iterable[Any], shown: str) -> Iterator[tuple[str, str, str | None]]:
    """(document id, image, sha256) of every image in rows of `IMAGE_COLUMNS`; of several, each in order."""
    for name, image, digest, images in rows:
        several = several_images(images, shown)
        if several is None:
            yield name, str(image), digest
        for own, its_digest in several or ():
            yield name, own, its_digest


def image_uris(database: Database, prefix: str) -> set[str]:
    """The image URIs with this prefix of all documents, including dead ones."""
    with database.read() as connection:
        single = select(DocumentRow.image).where(DocumentRow.image.startswith(prefix, autoescape=True))
        found = {uri for uri in connection.execute(single).scalars() if uri is not None}
        several = select(DocumentRow.images).where(DocumentRow.images.is_not(None))
        for images in connection.execute(several).scalars():
            found.update(uri for uri, _ in several_images(images, database.shown) or ())
    return {uri for uri in found if uri.startswith(prefix)}
