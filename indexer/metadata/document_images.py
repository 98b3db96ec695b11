"""The images of stored documents: a single one in two columns, several in a third one.

What this module does not know: the image files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import select

from indexer.errors import CorruptionError
from indexer.metadata.database import Database
from indexer.metadata.schema import DocumentRow
from indexer.types import Modality

IMAGE_COLUMNS = (DocumentRow.id, DocumentRow.image, DocumentRow.image_sha256, DocumentRow.images)


class DocumentRecord(NamedTuple):
    """A stored document and its vector's id. A tuple, since every search creates some."""

    vector: int
    id: str
    text: str | None
    uri: str | None
    image: str | None
    image_sha256: str | None
    modality: Modality
    fields: dict[str, Any]
    images: list[list[str]] | None

    def every_image(self) -> list[tuple[str, str | None]]:
        """(image, image_sha256) of each image, in order."""
        if self.images is not None:
            return [(uri, digest) for uri, digest in self.images]
        return [] if self.image is None else [(self.image, self.image_sha256)]


def several_images(value: Any, shown: str) -> list[list[str]] | None:
    """The images that a row records, a URI and a sha256 each; None if it records none.

    Args:
        value: The column's value.
        shown: The database, as errors name it.

    Raises:
        CorruptionError: The value has another form.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(_is_image(each) for each in value):
        raise CorruptionError(
            f"{shown} is damaged: the images of a document are {str(value)[:80]!r}.",
            "Restore it from a backup, or index again into a new folder.",
        )
    return value


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


def _is_image(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)
