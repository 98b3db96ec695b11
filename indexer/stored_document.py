"""A document as it comes back from a collection: what was stored, with the files of its images.

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
    """A document as it comes back.

    Attributes:
        id: The user's id.
        text: Its text.
        uri: Where it came from.
        image: The file of its image; it may have moved since. None also where what is recorded is no name of one.
        image_sha256: Of its image, as it was indexed; see `indexer.files.media.recorded_image`.
        fields: Its JSON object.
        modality: What its vector was made of.
        images: The files of all its images, in order; `image` is the first.
        images_sha256: Of each, as it was indexed.
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
    """What is stored of a document.

    Args:
        record: As SQL has it.
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
    """The file of an image. One that is named wrongly costs its document's image, and `check` reports it."""
    try:
        return image_path(media, uri)
    except StoreError:
        return None
