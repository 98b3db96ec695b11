"""A document as read from a collection, with the files of its images.

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


def stored_documents(records: Iterable[DocumentRecord], media: Path) -> list[StoredDocument]:
    """The documents of SQL records, in their order.

    Args:
        records: The records.
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


def _is_image(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) for each in value)


def _file(media: Path, uri: str) -> Path | None:
    """The file of an image, or None if its recorded name is invalid, which `check` reports."""
    try:
        return image_path(media, uri)
    except StoreError:
        return None
