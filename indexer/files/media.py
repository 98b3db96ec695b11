"""Images of documents: referenced by path, or stored once by content.

Storing stages the bytes, and `settle_images` makes those of a whole commit durable at once.

An image is recorded as a URI, `file:///…` (percent-encoded, so that any file name survives) or `media:ab/abcd….png`.

What this module does not know: SQL, models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from indexer.errors import ItemError
from indexer.files.atomic import settle, write_pending
from indexer.files.layout import MEDIA, image_path
from indexer.types import ImageSource


@dataclass(frozen=True)
class StoredImage:
    """An image's URI and its sha256 when it was embedded."""

    uri: str
    sha256: str


def store_image(folder: Path, source: ImageSource) -> StoredImage:
    """Reference a file, or stage bytes and PIL images under `folder` by content, for `settle_images` to make durable.

    Raises:
        ItemError: The file has disappeared, or the image cannot be encoded.
        StoreError: The disk refuses.
    """
    from indexer.corpus.images import encode_for_storage, image_digest

    if isinstance(source, Path):
        return StoredImage(source.absolute().as_uri(), image_digest(source))
    content, suffix = encode_for_storage(source)
    digest = image_digest(content)
    uri = f"{MEDIA}{digest[:2]}/{digest}{suffix}"
    path = image_path(folder, uri)
    if not _holds(path, digest):
        write_pending(path, content)
    return StoredImage(uri, digest)


def _holds(path: Path, digest: str) -> bool:
    """Whether an image is stored undamaged. A damaged one is replaced when the same bytes are stored again."""
    from indexer.corpus.images import image_digest

    try:
        return path.exists() and image_digest(path) == digest
    except ItemError:
        return False


def settle_images(folder: Path, uris: Iterable[str | None]) -> None:
    """Make the images of the `media:` URIs durable; other URIs are ignored.

    Raises:
        StoreError: Writing fails, or an image was never stored.
    """
    settle(image_path(folder, uri) for uri in uris if uri is not None and uri.startswith(MEDIA))


def recorded_image(path: Path, sha256: str | None) -> bytes | None:
    """An image's bytes, if their sha256 is the recorded one; None if the file changed or is gone.

    A document may name any file of the machine on which it is read. The check of the sha256 ensures that whoever made
        the collection cannot make a file appear that they did not have themselves.
    """
    from indexer.corpus.images import image_digest
    from indexer.corpus.paths import MAX_BYTES, read_file

    try:
        content = read_file(path, MAX_BYTES)
    except ItemError:
        return None
    return content if image_digest(content) == sha256 else None
