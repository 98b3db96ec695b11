"""A document as read from a collection, with the files of its images.

What this module does not know: SQL, vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.errors import StoreError
from indexer.files.media import image_path
from indexer.metadata.document_images import DocumentRecord
from indexer.types import Modality


@dataclass(frozen=True)
class StoredDocument:
    """A document as read from a collection.

    Attributes:
        id: The user's id.
        text: Its text.
        uri: Where it came from.
        image: The file of its image, which may have moved since. None also if the recorded name is invalid.
        image_sha256: The sha256 of its image when it was indexed; see `indexer.files.media.recorded_image`.
        fields: Its fields.
        modality: The modality of its vector.
        images: The files of all its images, in order; `image` is the first.
        images_sha256: The sha256 of each when it was indexed.
    """

    id: str
    text: str | None
    uri: str | None
    image: Path | None
    fields: dict[str, Any]
    modality: Modality
    image_sha256: str | None = None
    images: tuple[Path, ...] = ()
    images_sha256: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if self.image is not None and not self.images:
            object.__setattr__(self, "images", (self.image,))
            object.__setattr__(self, "images_sha256", (self.image_sha256,))


def stored_document(record: DocumentRecord, media: Path) -> StoredDocument:
    """The document of a SQL record.

    Args:
        record: The record.
        media: The folder of stored images.
    """
    images = [(_file(media, uri), digest) for uri, digest in record.every_image()]
    known = [(path, digest) for path, digest in images if path is not None]
    return StoredDocument(
        id=record.id,
        text=record.text,
        uri=record.uri,
        image=images[0][0] if images else None,
        fields=record.fields,
        modality=record.modality,
        image_sha256=record.image_sha256,
        images=tuple(path for path, _ in known),
        images_sha256=tuple(digest for _, digest in known),
    )


def _file(media: Path, uri: str) -> Path | None:
    """The file of an image, or None if its recorded name is invalid, which `check` reports."""
    try:
        return image_path(media, uri)
    except StoreError:
        return None
