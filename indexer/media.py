"""Images of documents: referenced where they are, or kept once by content.

Storing puts bytes aside, and `settle_images` makes them durable, those of a whole commit at once.

An image is recorded as a URI, `file:///…` (percent-encoded, so that any file name survives) or `media:ab/abcd….png`.

What this module does not know: SQL, models.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from indexer.files import settle, write_pending
from indexer.types import ImageSource

MEDIA, FILE = "media:", "file://"


@dataclass(frozen=True)
class StoredImage:
    """Where a document's image is, and what it was when it was embedded."""

    uri: str
    sha256: str


def store_image(folder: Path, source: ImageSource) -> StoredImage:
    """Reference a file, or put bytes and PIL images under `folder` by content, where `settle_images` makes them last.

    Raises:
        ItemError: The file is gone meanwhile, or the image cannot be encoded.
        StoreError: The disk refuses.
    """
    from indexer.corpus.images import encode_for_storage, image_digest

    if isinstance(source, Path):
        return StoredImage(source.absolute().as_uri(), image_digest(source))
    content, suffix = encode_for_storage(source)
    digest = image_digest(content)
    name = f"{digest[:2]}/{digest}{suffix}"
    if not (folder / name).exists():
        write_pending(folder / name, content)
    return StoredImage(MEDIA + name, digest)


def settle_images(folder: Path, uris: Iterable[str | None]) -> None:
    """Make the images behind the `media:` URIs durable; others need nothing.

    Raises:
        StoreError: The disk refuses, or an image was never stored.
    """
    settle(image_path(folder, uri) for uri in uris if uri is not None and uri.startswith(MEDIA))


def image_path(folder: Path, uri: str) -> Path:
    """The file behind an image's URI; it need not exist any more."""
    if uri.startswith(MEDIA):
        return folder / uri.removeprefix(MEDIA)
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE))))
