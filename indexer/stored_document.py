"""A document as it comes back from a collection: what was stored, with the files of its images.

What this module does not know: SQL, vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from indexer.errors import CorruptionError, StoreError
from indexer.files.layout import image_path
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


class DocumentRecord(NamedTuple):
    """A document as stored, with where its vector is. A tuple, since every search makes some."""

    vector: int
    id: str
    text: str | None
    uri: str | None
    image: str | None
    image_sha256: str | None
    modality: Modality
    fields: dict[str, Any]
    images: list[list[str]] | None


def stored_documents(records: Iterable[DocumentRecord], media: Path) -> list[StoredDocument]:
    """What is stored of documents, in the order given.

    Args:
        records: As SQL has them.
        media: The folder of stored images.
    """
    return [_stored(each, media) for each in records]


def _stored(record: DocumentRecord, media: Path) -> StoredDocument:
    recorded: Sequence[Sequence[str | None]] = record.images or ()
    if record.images is None and record.image is not None:
        recorded = ((record.image, record.image_sha256),)
    images = [(_file(media, str(uri)), digest) for uri, digest in recorded]
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


def several_images(value: Any, shown: str) -> list[list[str]] | None:
    """What a row says of several images: a URI and a digest each; None where it says nothing.

    Args:
        value: Of the column.
        shown: The database, as errors name it.

    Raises:
        CorruptionError: It says something else.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(_is_image(each) for each in value):
        raise CorruptionError(
            f"{shown} is damaged: the images of a document are {str(value)[:80]!r}.",
            "Restore it from a backup, or index again into a new folder.",
        )
    return value


def _is_image(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def _file(media: Path, uri: str) -> Path | None:
    """The file of an image. One that is named wrongly costs its document's image, and `check` reports it."""
    try:
        return image_path(media, uri)
    except StoreError:
        return None
